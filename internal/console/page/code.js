// The lines of code that do what the page does, to copy.

import { $, element } from "./elements.js";
import { beside } from "./trouble.js";

/** Shows them, for this server and this name; with a token, where the server has the name from one. */
export function showCode(room, name, token) {
  const code = `import { Hubbub } from "${beside("hubbub.js")}";

const name = ${JSON.stringify(name)};
${token ? 'const token = "…"; // from your application\n' : ""}const hub = new Hubbub("${beside("ws").href.replace(/^http/, "ws")}"${token ? ", { token }" : ""});
const room = hub.room(${JSON.stringify(room)}, { data: { name } });

hub.on("state", (state) => console.log(state));
room.on("members", (all, n) => console.log(n, "here"));
room.on("message", (m) => console.log(m.content));

await room.join();
await room.publish({ name, text: "hello" });
`;
  $("code").replaceChildren(...code.split(/("(?:[^"\\]|\\.)*"|\b(?:import|from|const|new|await)\b)/).map((part) =>
    part[0] === '"' ? element("span", "string", part) : /^(import|from|const|new|await)$/.test(part) ? element("span", "word", part) : part));
}

export async function copyCode() {
  let done = true;
  try {
    await navigator.clipboard.writeText($("code").textContent);
  } catch { // only pages of https and of localhost have a clipboard
    getSelection().selectAllChildren($("code"));
    done = document.execCommand("copy");
  }
  $("copied").textContent = done ? "Copied." : "It is marked: copy it with your keyboard.";
  setTimeout(() => { $("copied").textContent = ""; }, 4000);
}
