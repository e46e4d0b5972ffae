// Types of hubbub.js; README.md says what each thing does.

/** A place in a room that has history. */
export interface Position {
  epoch: string;
  offset: number;
}

export interface Member<Data = any> {
  client_id: string;
  user?: string;
  data?: Data;
}

/** What somebody said to everybody, or to this client. */
export interface Message<Content = any> {
  msg_type: string;
  /** The sender's client id, or what the backend goes by: "server". */
  from: string;
  user?: string;
  content: Content;
  /** Unix milliseconds by the server's clock. */
  time: number;
}

export interface RoomMessage<Content = any> extends Message<Content> {
  room: string;
  /** Where the room has history. */
  offset?: number;
  key?: string;
}

/** Messages that will not come. */
export interface Gap {
  room?: string;
  /** Missing where nobody knows. */
  count?: number;
  reason: string;
  from_offset?: number;
  to_offset?: number;
  epoch?: string;
}

/** One message that was taken back, or all up to to_offset. */
export interface Deleted {
  room: string;
  offset?: number;
  to_offset?: number;
}

export interface Joined extends Partial<Position> {
  room: string;
  recovered?: boolean;
  reason?: string;
}

export interface Ack extends Partial<Position> {
  /** It had gone through before. */
  duplicate?: boolean;
}

export interface HistoryPage<Content = any> extends Position {
  room: string;
  /** The oldest first. */
  messages: Omit<RoomMessage<Content>, "msg_type" | "room">[];
  more: boolean;
}

export interface Presence<Data = any> {
  room: string;
  count: number;
  members?: Member<Data>[];
  more?: boolean;
}

export type State = "connecting" | "online" | "waiting" | "closed";

export interface StateDetail {
  /** The WebSocket's close code; 1006 without one, 0 where none was opened. */
  code?: number;
  reason?: string;
  /** Milliseconds until the next try. */
  delay?: number;
  /** The handshake was refused though the server lets others in: its log says why (origin, address, a proxy between). */
  refused?: boolean;
}

export interface AskOptions {
  /** Milliseconds until the promise is rejected with the code "timeout". */
  timeout?: number;
  signal?: AbortSignal;
}

export interface PublishOptions extends AskOptions {
  key?: string;
  /** 1 to 64 bytes; one is made where it is missing. */
  publishId?: string;
}

type SocketClass = new (url: string, protocols?: any) => any;

export interface HubbubOptions {
  /** A token, or what gets one. Called when there is none that is good, and before one ends. */
  token?: string | null | (() => string | null | undefined | Promise<string | null | undefined>);
  /** In place of the global one: the class of the npm package ws. */
  WebSocket?: SocketClass;
  fetch?: typeof fetch;
  /** For history, presence, ping and request, and for connecting: 10000 ms. */
  timeout?: number;
  /** For what waits while away: join, leave, publish, chat and send: 60000 ms. */
  sendTimeout?: number;
  /** How many messages may await their answers: 1000. */
  queue?: number;
  /** And how many characters of them: 4 Mi. */
  queueBytes?: number;
  /** The longest first wait before coming back, 500 ms, and the longest of all, 30000. */
  minDelay?: number;
  maxDelay?: number;
}

/** What promises are rejected with, but for an AbortSignal's own reason. */
export class HubbubError extends Error {
  constructor(code: string, message: string, more?: Partial<HubbubError>);
  /** One of the protocol's, or "timeout", "unknown", "queue_full", "too_large", "bad_message", "closed". */
  code: string;
  /** The same may succeed later. */
  retry: boolean;
  /** After so many milliseconds. */
  retryAfter?: number;
  /** It was sent, so with "timeout", "unknown" and "closed" it may have gone through. */
  sent?: boolean;
}

interface RoomEvents {
  message: (message: RoomMessage) => void;
  members: (members: Member[], count: number) => void;
  gap: (gap: Gap) => void;
  lost: (why: string) => void;
  deleted: (what: Deleted) => void;
  left: (reason: string) => void;
}

interface HubEvents {
  state: (state: State, detail: StateDetail) => void;
  chat: (message: Message) => void;
  direct: (message: Message) => void;
  gap: (gap: Gap) => void;
  joined: (room: Room) => void;
  error: (error: { code: string; message: string; retry: boolean; retry_after_ms?: number }) => void;
  other: (message: { msg_type: string; [key: string]: any }) => void;
}

export interface Room {
  readonly name: string;
  /** It is a member, or will be again when the connection is back. */
  readonly joined: boolean;
  /** What it has had; null in a room without history. */
  readonly position: Position | null;
  /** While there is a listener for "members" and the room tells who is in it. */
  readonly members: Member[];
  readonly count: number | undefined;
  on<E extends keyof RoomEvents>(event: E, listener: RoomEvents[E]): () => void;
  join(options?: AskOptions & { since?: Position }): Promise<Joined>;
  leave(options?: AskOptions): Promise<unknown>;
  publish(content: unknown, options?: PublishOptions): Promise<Ack>;
  history<Content = any>(options?: AskOptions & { limit?: number; since?: Position; before?: Position }): Promise<HistoryPage<Content>>;
  presence<Data = any>(options?: AskOptions): Promise<Presence<Data>>;
}

export class Hubbub {
  /** Connects at once. Throws where there is no WebSocket. */
  constructor(url: string, options?: HubbubOptions);
  readonly state: State;
  /** The client id, once it was online; another one when the session was lost. */
  readonly id: string | undefined;
  readonly user: string | undefined;
  on<E extends keyof HubEvents>(event: E, listener: HubEvents[E]): () => void;
  room(name: string, options?: { data?: unknown }): Room;
  chat(content: unknown, options?: AskOptions): Promise<Ack>;
  send(clientId: string, content: unknown, options?: AskOptions): Promise<Ack>;
  request<Answer = any>(method: string, content?: unknown, options?: AskOptions): Promise<Answer>;
  ping(options?: AskOptions): Promise<{ time: number }>;
  check(): void;
  close(): void;
}
