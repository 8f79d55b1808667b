import { Emitter } from "./emitter.js";
import { Credentials, SallyportError, Word } from "./words.js";

/** `up`: signed in. `waiting`: the connection dropped and comes back. */
export type LinkState = "idle" | "connecting" | "up" | "waiting";

interface LinkEvents {
  state: LinkState;
  word: Word;
  /** The session is another one: whatever the former one had is over. */
  renewed: undefined;
  over: SallyportError;
}

/** What a page has to keep of a session to go on with it when it is loaded anew. */
export interface Kept {
  session: string;
  number: string | null;
  seq: number;
  refs: number;
}

interface Pending {
  word: Word;
  resolve(word: Word): void;
  reject(error: SallyportError): void;
  begun?(word: Word): void;
}

const PROTOCOL = "sallyport.v1";
const PING_MS = 20_000;
const PONG_MS = 6_000;
const SLOWEST_MS = 8_000;
/** Close codes of the server after which there is nothing to come back to. */
const OVER = 4000;
const REPLACED = 4001;

/** One session over as many WebSocket connections as it takes. */
export class Link extends Emitter<LinkEvents> {
  state: LinkState = "idle";
  session = "";
  number: string | null = null;
  private socket?: WebSocket;
  private credentials: Credentials = {};
  private seq = 0;
  private refs = 0;
  private attempts = 0;
  private timer?: ReturnType<typeof setTimeout>;
  private pulse?: ReturnType<typeof setInterval>;
  private readonly pending = new Map<string, Pending>();
  private entering?: Pending;
  private readonly online = () => this.hurry();

  constructor(private readonly url: string, private readonly reconnect: boolean) {
    super();
  }

  /** Connects and signs in, or goes on with a session. */
  signIn(credentials: Credentials, kept?: Kept): Promise<void> {
    this.close();
    this.credentials = credentials;
    if (kept) ({ session: this.session, number: this.number, seq: this.seq, refs: this.refs } = kept);
    globalThis.addEventListener?.("online", this.online);
    return new Promise((resolve, reject) => {
      this.entering = { word: { type: "sign_in" }, resolve: () => resolve(), reject };
      this.connect();
    });
  }

  /** Asks; a request that the connection drops under is asked again on the next one, and obeyed once. `begun` hears of what
   * comes before the outcome. */
  request(word: Word, begun?: (word: Word) => void): Promise<Word> {
    if (this.state === "idle") return Promise.reject(new SallyportError("not_signed_in", "sign in first"));
    const ref = String(++this.refs);
    return new Promise((resolve, reject) => {
      const pending: Pending = { word: { ...word, ref }, resolve, reject };
      if (begun) pending.begun = begun;
      this.pending.set(ref, pending);
      if (this.state === "up") this.write(pending.word);
    });
  }

  /** Another token for the next sign-in. */
  remember(token: string): void {
    this.credentials = { ...this.credentials, token };
  }

  /** What is to be kept where the page goes; `undefined` without a session. */
  kept(): Kept | undefined {
    const { session, number, seq, refs } = this;
    return session ? { session, number, seq, refs } : undefined;
  }

  /** Signs out for good. */
  close(): void {
    if (this.state === "up") this.write({ type: "sign_out" });
    this.end(new SallyportError("signed_out", "signed out"));
  }

  /** Tries at once to come back. */
  hurry(): void {
    if (this.state !== "waiting") return;
    clearTimeout(this.timer);
    this.attempts = 0;
    this.connect();
  }

  private change(state: LinkState): void {
    if (this.state === state) return;
    this.state = state;
    this.emit("state", state);
  }

  private write(word: Word): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(word));
  }

  private connect(): void {
    this.change(this.session ? "waiting" : "connecting");
    const socket = new WebSocket(this.url, PROTOCOL);
    this.socket = socket;
    const patience = setTimeout(() => socket.close(), 10_000);
    socket.onopen = () => this.write(this.greeting());
    socket.onmessage = event => {
      if (this.socket === socket) this.take(JSON.parse(event.data as string) as Word);
      if (this.state === "up") clearTimeout(patience);
    };
    socket.onclose = event => {
      clearTimeout(patience);
      if (this.socket === socket) this.dropped(event.code);
    };
  }

  private greeting(): Word {
    if (this.session) return { type: "sign_in", ref: "in", session: this.session, seq: this.seq };
    const { number, password, token, displayName } = this.credentials;
    return { type: "sign_in", ref: "in", number, password, token, display_name: displayName };
  }

  private take(word: Word): void {
    if (word.seq !== undefined) {
      if (word.seq <= this.seq) return;
      this.seq = word.seq;
    }
    if (word.ref === "in") this.entered(word);
    else if (word.type === "signed_out") this.end(new SallyportError(String(word["reason"]), "the session has ended"), true);
    else if (word.type === "pong") this.answered = true;
    else if (word.ref !== undefined) this.settle(String(word.ref), word);
    else this.emit("word", word);
  }

  private settle(ref: string, word: Word): void {
    const pending = this.pending.get(ref);
    if (!pending) return;
    if (word.type === "calling") {
      pending.begun?.(word);
      return;
    }
    this.pending.delete(ref);
    if (word.type === "error") pending.reject(SallyportError.of(word));
    else pending.resolve(word);
  }

  private entered(word: Word): void {
    if (word.type === "error") {
      const error = SallyportError.of(word);
      if (error.code === "unknown_session") this.renew();
      else this.end(error, true);
      return;
    }
    this.session = String(word["session"]);
    this.number = (word["number"] as string | null) ?? null;
    this.attempts = 0;
    this.beat();
    this.change("up");
    for (const { word } of this.pending.values()) this.write(word);
    this.entering?.resolve(word);
    delete this.entering;
  }

  /** The server does not know the session any more: a new one, in which nothing of the former is under way. */
  private renew(): void {
    this.session = "";
    this.seq = 0;
    const lost = new SallyportError("unknown_session", "the session was lost");
    for (const pending of this.pending.values()) pending.reject(lost);
    this.pending.clear();
    this.emit("renewed", undefined);
    this.write(this.greeting());
  }

  private answered = true;

  private beat(): void {
    clearInterval(this.pulse);
    this.pulse = setInterval(() => {
      this.answered = false;
      this.write({ type: "ping" });
      const socket = this.socket;
      setTimeout(() => {
        // A dead path says nothing: it is not waited for the system to notice.
        if (!this.answered && this.socket === socket) {
          socket?.close();
          this.dropped(0);
        }
      }, PONG_MS);
    }, PING_MS);
  }

  private dropped(code: number): void {
    clearInterval(this.pulse);
    delete this.socket;
    const error = code === REPLACED ? new SallyportError("replaced", "another page goes on with this session")
      : new SallyportError("connection", "the appliance cannot be reached");
    if (code === OVER || code === REPLACED || !this.reconnect || (this.entering && this.attempts > 2)) {
      this.end(error, true);
      return;
    }
    this.change("waiting");
    const pause = Math.min(SLOWEST_MS, 250 * 2 ** this.attempts++) * (0.5 + Math.random() / 2);
    this.timer = setTimeout(() => this.connect(), pause);
  }

  private end(error: SallyportError, told = false): void {
    globalThis.removeEventListener?.("online", this.online);
    clearTimeout(this.timer);
    clearInterval(this.pulse);
    const socket = this.socket;
    delete this.socket;
    socket?.close();
    this.session = "";
    this.seq = 0;
    this.attempts = 0;
    for (const pending of this.pending.values()) pending.reject(error);
    this.pending.clear();
    const entering = this.entering;
    delete this.entering;
    this.change("idle");
    entering?.reject(error);
    if (told && !entering) this.emit("over", error);
  }
}
