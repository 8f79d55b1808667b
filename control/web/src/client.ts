import { Call, MediaOptions, Settings } from "./call.js";
import { Emitter } from "./emitter.js";
import { Kept, Link, LinkState } from "./link.js";
import { Credentials, SallyportError, Word } from "./words.js";

/** How a client is made; every member may be left out. */
export interface Options {
  /** The appliance, `https://calls.example.com`; default: where the page or the script comes from. */
  url?: string;
  /** Bearer token. */
  token?: string;
  iceServers?: RTCIceServer[];
  /** Candidates follow the offer as they are found (default), or go along with it. */
  trickle?: boolean;
  /** Whether a connection that drops comes back by itself (default). */
  reconnect?: boolean;
  /** Whether the far side is played by itself (default). */
  play?: boolean;
  /** Whether calls that talk outlive the page, for {@link Sallyport.restore} of the next one in this tab. */
  keep?: boolean;
  /** Milliseconds between two `quality` events of a call; 0: none. */
  qualityInterval?: number;
}

/** What happens to a client. */
export interface ClientEvents {
  /** `up`: signed in; `waiting`: the connection dropped and comes back. */
  connection: LinkState;
  /** A call rings here. */
  incoming: Call;
  /** A call begins, of either direction. */
  call: Call;
  /** State of the registration of an agent's number with its SIP server. */
  registration: { state: string; detail?: string };
  /** Signed out, not by us. */
  signedout: SallyportError;
}

/** What a page leaves for the next one in its tab. */
interface Left {
  kept: Kept;
  calls: Pick<Call, "id" | "direction" | "from" | "to" | "muted">[];
}

const LEFT = "sallyport";

/** A browser's calls by a Sallyport appliance. */
export class Sallyport extends Emitter<ClientEvents> {
  /** Calls that are not over. */
  readonly calls = new Set<Call>();
  private readonly link: Link;
  private readonly settings: Settings;
  private readonly token: string | undefined;
  private entering?: Promise<void> | undefined;

  constructor(options: Options = {}) {
    super();
    const rest = new URL(options.url ?? "/", location.href).href.replace(/\/+$/, "");
    this.token = options.token;
    this.settings = {
      iceServers: options.iceServers ?? [], trickle: options.trickle ?? true, play: options.play ?? true,
      qualityInterval: options.qualityInterval ?? 2000,
    };
    this.link = new Link(rest.replace(/^http/, "ws") + "/v1/socket", options.reconnect ?? true);
    this.link.on("state", state => {
      this.emit("connection", state);
      if (state === "up") this.calls.forEach(call => call.refresh());
    });
    this.link.on("word", word => this.take(word));
    this.link.on("renewed", () => this.renewed());
    this.link.on("over", error => this.over(error));
    globalThis.addEventListener?.("pagehide", event => {
      if (!(event as PageTransitionEvent).persisted && !(options.keep && this.leave())) this.link.close();
    });
  }

  /** State of the connection. */
  get connection(): LinkState {
    return this.link.state;
  }

  /** The number under which this browser is called; `null` for a customer. */
  get number(): string | null {
    return this.link.number;
  }

  /** Signs in: an agent with its number, a customer without. */
  signIn(credentials: Credentials = {}): Promise<void> {
    const token = credentials.token ?? this.token;
    const entering = this.link.signIn(token === undefined ? credentials : { ...credentials, token });
    this.entering = entering;
    entering.catch(() => (this.entering = undefined));
    return entering;
  }

  /** Stays signed in by another token, before the one in use expires; a session whose token has expired ends with its last call. */
  async renew(token: string): Promise<void> {
    this.link.remember(token);
    await this.link.request({ type: "renew", token });
  }

  /** Goes on with the calls of the page that was here before, in this tab; it was made with `keep`. Another connection of ours
   * takes each of them up. `credentials`: for the case that the session is lost meanwhile. */
  async restore({ media, ...credentials }: Credentials & MediaOptions = {}): Promise<Call[]> {
    const text = sessionStorage.getItem(LEFT);
    sessionStorage.removeItem(LEFT);
    if (!text) return [];
    const { kept, calls } = JSON.parse(text) as Left;
    const ours = calls.map(({ id, direction, from, to, muted }) => {
      const call = new Call(this.link, this.settings, direction, from, to, id);
      call.muted = muted;
      call.goOn();
      return this.add(call);
    });
    const token = credentials.token ?? this.token;
    this.entering = this.link.signIn(token === undefined ? credentials : { ...credentials, token }, kept);
    await this.entering;
    await Promise.all(ours.map(call => call.renew(media ? { media } : {}).catch((error: unknown) => {
      call.end(error instanceof SallyportError ? error.code : "media", String(error));
    })));
    return ours.filter(call => call.state !== "ended");
  }

  /** Whether there is something to be left for the next page. */
  private leave(): boolean {
    const kept = this.link.kept();
    const calls = [...this.calls].filter(call => call.state === "connected");
    if (!kept || calls.length === 0) return false;
    const left: Left = { kept, calls: calls.map(({ id, direction, from, to, muted }) => ({ id, direction, from, to, muted })) };
    sessionStorage.setItem(LEFT, JSON.stringify(left));
    return true;
  }

  /** Signs out; calls end. */
  async signOut(): Promise<void> {
    this.entering = undefined;
    this.link.close();
    for (const call of [...this.calls]) call.end("signed_out", "signed out");
  }

  /** Calls a number; signs in as a customer where nobody is signed in yet. `data`: headers of the INVITE, `X-...`. What becomes
   * of the call is told by its events. */
  call(to: string, options: MediaOptions & { data?: Record<string, string> } = {}): Call {
    const call = this.add(new Call(this.link, this.settings, "out", this.number ?? "", to));
    const ready = this.link.state === "idle" || !this.entering ? this.signIn() : this.entering;
    ready
      .then(() => call.place(options, options.data, () => undefined))
      .catch((error: unknown) => call.end(error instanceof SallyportError ? error.code : "media", String(error)));
    return call;
  }

  private add(call: Call): Call {
    this.calls.add(call);
    call.on("ended", () => this.calls.delete(call));
    this.emit("call", call);
    return call;
  }

  private take(word: Word): void {
    if (word.type === "incoming") {
      const [from, to] = [String(word["from"]), String(word["to"])];
      const call = this.add(new Call(this.link, this.settings, "in", from, to, String(word.call)));
      this.emit("incoming", call);
    } else if (word.type === "registration") {
      const state = { state: String(word["state"]) };
      this.emit("registration", word["detail"] ? { ...state, detail: String(word["detail"]) } : state);
    } else if (word.call) {
      for (const call of [...this.calls]) if (call.id === word.call) call.take(word);
    }
  }

  /** The appliance's control was replaced: calls that talk go on, others are over. */
  private renewed(): void {
    for (const call of [...this.calls]) {
      if (call.state === "connected") call.claim();
      else call.end("unknown_session", "the session was lost");
    }
  }

  private over(error: SallyportError): void {
    this.entering = undefined;
    for (const call of [...this.calls]) call.end(error.code, error.message);
    this.emit("signedout", error);
  }
}
