import { Hubbub, HubbubError, type Gap, type Member, type RoomMessage, type State } from "hubbub-client";

const hub = new Hubbub("wss://live.example.com/ws", { token: async () => "t", WebSocket, queue: 10, timeout: 1000 });
hub.on("state", (s: State, detail) => console.log(s, detail.code, detail.delay));
const off: () => void = hub.on("chat", (m) => m.from.length);
off();
const room = hub.room("lobby", { data: { name: "Ann" } });
room.on("message", (m: RoomMessage<string>) => m.content.length);
room.on("members", (list: Member[], count: number) => list.length + count);
room.on("gap", (g: Gap) => g.reason);
room.on("lost", (why) => why.length);
room.on("deleted", (d) => d.to_offset);
room.on("left", (reason) => reason.length);
hub.on("joined", (r) => r.name);
const { epoch } = await room.join({ signal: new AbortController().signal, since: { epoch: "e", offset: 1 } });
const { duplicate } = await room.publish({ any: "thing" }, { key: "k", publishId: "p", timeout: 5 });
const page = await room.history<{ text: string }>({ limit: 20 });
page.messages[0]?.content.text.length;
(await room.presence<{ name: string }>()).members?.[0]?.data?.name.length;
await hub.chat("x");
await hub.send("id", 1);
const answer: number = await hub.request<number>("double", 21);
try { await room.leave(); } catch (e) { if (e instanceof HubbubError && e.retry) console.log(e.code, e.retryAfter, e.sent, epoch, duplicate, answer); }
// @ts-expect-error: a name is a string
hub.room(7);
// @ts-expect-error: there is no such event
hub.on("nothing", () => {});
// @ts-expect-error: the reason is a string
room.on("lost", (why: number) => why);
// @ts-expect-error: nobody sets it
hub.id = "x";
// @ts-expect-error: nothing is no content
room.publish();
// @ts-expect-error: whereto?
new Hubbub();
hub.check();
hub.close();
