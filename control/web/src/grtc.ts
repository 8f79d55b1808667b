// For pages that were written for the Genesys WebRTC JavaScript API (Web Real-Time Communications 8.5, its public Developer's
// Guide): the names of that guide, over the hanging GET. Written anew from the guide's names; docs/browsers.md has the list.
import { gathered } from "./media.js";

type Word = Record<string, unknown> & { messageType: string };

const SPEAK_MS = 3000;
const NO_ANSWER_MS = 60_000;
const NO_ANSWER_LEAST_MS = 18_000;
const POLL_MS = 30_000;
const POLL_LEAST_MS = 10_000;
const RETRY_MS = 3000;

/** Handlers of one event; one that returns `false` is the last to hear. */
export class Callbacks<Detail = undefined> {
  private readonly handlers: ((detail: Detail) => unknown)[] = [];

  add(handler: (detail: Detail) => unknown): void {
    this.handlers.push(handler);
  }

  remove(handler: (detail: Detail) => unknown): void {
    const at = this.handlers.indexOf(handler);
    if (at >= 0) this.handlers.splice(at, 1);
  }

  /** @internal */
  fire(detail: Detail): void {
    for (const handler of [...this.handlers]) {
      try {
        if (handler(detail) === false) return;
      } catch (error) {
        console.error(error);
      }
    }
  }
}

/** What goes wrong; `name` is the guide's word for it. */
export class GrtcError extends Error {
  constructor(name: "CONFIGURATION_ERROR" | "INVALID_STATE_ERROR" | "WEBRTC_ERROR" | "CONNECT_ERROR", message: string) {
    super(message);
    this.name = name;
  }
}

/** The guide's parameters that mean something here; all others are taken and ignored. */
export interface Configuration {
  /** URLs of appliances, separated by commas: the first one that signs in is used. */
  webrtc_gateway: string;
  /** `host:port`, several separated by commas. */
  stun_server?: string;
  turn_server?: string;
  turn_username?: string;
  turn_password?: string;
  /** The number's password, where the SIP server wants one; `sip_username` is the number itself. */
  sip_username?: string;
  sip_password?: string;
  /** Milliseconds. */
  noanswer_timeout?: number | string;
  ice_timeout?: number | string;
  polling_timeout?: number | string;
  /** Ours: a bearer token. */
  sallyport_token?: string;
  [more: string]: unknown;
}

const number = (value: unknown, otherwise: number) => {
  const given = Number(value);
  return value !== undefined && value !== "" && Number.isFinite(given) && given > 0 ? given : otherwise;
};

/** A browser that is signed in, or about to be. */
export class Client {
  readonly onConnect = new Callbacks<Record<string, never>>();
  readonly onRegister = new Callbacks<Record<string, never>>();
  readonly onDisconnect = new Callbacks<Record<string, never>>();
  readonly onFailed = new Callbacks<{ message: string }>();
  readonly onMediaSuccess = new Callbacks<{ stream: MediaStream }>();
  readonly onMediaFailure = new Callbacks<{ message: string }>();
  readonly onIncomingCall = new Callbacks<{ peer: string }>();
  readonly onPeerClosing = new Callbacks<Record<string, never>>();
  readonly onPeerNoanswer = new Callbacks<Record<string, never>>();
  readonly onIceDisconnected = new Callbacks<Record<string, never>>();
  readonly onConnectionError = new Callbacks<{ message: string }>();
  readonly onGatewayError = new Callbacks<{ message: string; error: string }>();
  readonly onWebrtcError = new Callbacks<{ message: string }>();
  readonly onNotifyEvent = new Callbacks<{ event: "talk" | "hold"; peer: string }>();
  readonly onInfoFromPeer = new Callbacks<Record<string, unknown>>();
  readonly onStatsFromServer = new Callbacks<Record<string, unknown>>();
  readonly onCallEvent = new Callbacks<{ event: string }>();
  /** @internal */
  stream?: MediaStream;
  /** @internal An INVITE that nobody has answered. */
  invite: Word | undefined;
  private readonly sessions = new Set<MediaSession>();
  private readonly gateways: string[];
  private session = "";
  private base = "";
  private after = 0;
  private generation = 0;

  constructor(readonly configuration: Configuration) {
    const list = typeof configuration?.webrtc_gateway === "string" ? configuration.webrtc_gateway.split(",") : [];
    this.gateways = list.map(one => one.trim().replace(/\/+$/, "")).filter(Boolean);
    if (this.gateways.length === 0 || !this.gateways.every(one => /^https?:\/\/[^/]/.test(one))) {
      throw new GrtcError("CONFIGURATION_ERROR", "webrtc_gateway must be an HTTP URL, or several separated by commas");
    }
  }

  /** Signs in as a customer. */
  connect(): void {
    void this.enter({}, this.onConnect);
  }

  /** Signs in as an agent with a directory number. */
  register(dn: string): void {
    void this.enter({ number: String(dn), password: this.configuration.sip_password ?? "" }, this.onRegister);
  }

  /** Signs out; calls end. */
  disconnect(): void {
    if (!this.session) return;
    // A page that goes away has no time for an answer.
    void fetch(`${this.url()}/sign-out`, { method: "POST", keepalive: true }).catch(() => undefined);
    this.leave();
    this.onDisconnect.fire({});
  }

  /** Asks for the microphone. Video is not carried: `video` alone is a failure, beside audio it is ignored. */
  enableMediaSource(audio: boolean | MediaTrackConstraints = true, video: boolean | MediaTrackConstraints = true): void {
    const wanted = audio || !video ? audio : false;
    void (async () => {
      if (!wanted) throw new GrtcError("WEBRTC_ERROR", "only audio is carried");
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
      this.onMediaSuccess.fire({ stream: this.stream });
    })().catch((error: Error) => this.onMediaFailure.fire({ message: error.message }));
  }

  /** Gives the microphone back. */
  disableMediaSource(): void {
    this.stream?.getTracks().forEach(track => track.stop());
    delete this.stream;
  }

  /** Plays a stream by an element of the page. */
  setViewFromStream(element: HTMLMediaElement, stream: MediaStream): void {
    element.srcObject = stream;
    void element.play?.()?.catch(() => undefined);
  }

  /** Which candidates are told; a page may put its own in its place. */
  filterIceCandidates(candidates: RTCIceCandidateInit[]): RTCIceCandidateInit[] {
    return candidates;
  }

  setLogLevel(_level: number): void {}
  setRenewSessionOnNeed(_on: boolean): void {}
  setMediaConstraintsForOffer(_audio: boolean, _video: boolean): void {}
  setMediaConstraintsForAnswer(_audio: boolean, _video: boolean): void {}
  setVideoBandwidth(_kilobits: number): void {}

  /** @internal */
  iceServers(): RTCIceServer[] {
    const { stun_server, turn_server, turn_username, turn_password } = this.configuration;
    const urls = (list: string | undefined, scheme: string) => (list ?? "").split(",").map(one => one.trim()).filter(Boolean)
      .map(one => (/^(stun|turn)s?:/.test(one) ? one : `${scheme}:${one}`));
    const turn = urls(turn_server, "turn").map(url => ({ urls: url, username: turn_username ?? "", credential: turn_password ?? "" }));
    return [...urls(stun_server, "stun").map(url => ({ urls: url })), ...turn];
  }

  /** @internal */
  adopt(session: MediaSession): void {
    this.sessions.add(session);
  }

  /** @internal A message to the appliance. */
  async say(word: Record<string, unknown>, to = ""): Promise<void> {
    if (!this.session) throw new GrtcError("INVALID_STATE_ERROR", "sign in first");
    const answer = await fetch(this.url() + (to ? `?to=${encodeURIComponent(to)}` : ""), {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(word),
    });
    if (!answer.ok) throw new GrtcError("CONNECT_ERROR", await detail(answer));
  }

  private url(): string {
    return `${this.base}/hanging/${this.session}`;
  }

  private leave(): void {
    this.generation++;
    this.session = "";
    this.invite = undefined;
    for (const session of this.sessions) session.close();
  }

  private async enter(who: Record<string, unknown>, done: Callbacks<Record<string, never>>): Promise<void> {
    let flaw = "the gateway cannot be reached";
    for (const base of this.gateways) {
      try {
        const body = { ...who, token: this.configuration.sallyport_token, events: 1 };
        const answer = await fetch(`${base}/hanging/sign-in`, {
          method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
        });
        if (!answer.ok) {
          flaw = await detail(answer);
          continue;
        }
        const { session } = (await answer.json()) as { session: string };
        this.leave();
        [this.session, this.base, this.after] = [session, base, 0];
        void this.poll(this.generation);
        done.fire({});
        return;
      } catch (error) {
        flaw = (error as Error).message;
      }
    }
    this.onFailed.fire({ message: flaw });
  }

  /** One GET after the other, as long as this sign-in lasts. */
  private async poll(generation: number): Promise<void> {
    const timeout = Math.max(POLL_LEAST_MS, number(this.configuration.polling_timeout, POLL_MS)) / 1000;
    while (generation === this.generation) {
      try {
        const answer = await fetch(`${this.url()}?timeout=${Math.round(timeout)}&after=${this.after}`, { cache: "no-store" });
        if (generation !== this.generation) return;
        if (answer.status === 404 || answer.status === 410) {
          this.leave();
          this.onConnectionError.fire({ message: "the session has ended" });
          return;
        }
        if (!answer.ok) throw new Error(await detail(answer));
        if (answer.status === 200) {
          const word = (await answer.json()) as Word;
          this.after = Number(word["number"] ?? this.after);
          this.take(word);
        }
      } catch (error) {
        if (generation !== this.generation) return;
        this.onConnectionError.fire({ message: (error as Error).message });
        await new Promise(resolve => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  private take(word: Word): void {
    const session = [...this.sessions].find(one => one.isOf(word));
    const peer = String(word["from"] ?? "");
    switch (word.messageType) {
      case "INVITE":
        this.invite = word;
        this.onIncomingCall.fire({ peer });
        break;
      case "BYE":
        if (this.invite?.["answererSessionId"] === word["answererSessionId"]) this.invite = undefined;
        session?.close();
        this.onPeerClosing.fire({});
        break;
      case "TALK":
      case "HOLD": {
        const event = word.messageType === "TALK" ? "talk" : "hold";
        this.onNotifyEvent.fire({ event, peer });
        const taker = session ?? [...this.sessions].find(one => one.isIdle());
        if (event === "hold") session?.holdCall();
        else if (session?.isEstablished()) session.resumeCall();
        else if (this.invite) taker?.acceptCall();
        break;
      }
      case "INFO":
        this.onInfoFromPeer.fire(told(word));
        break;
      case "STATS":
        this.onStatsFromServer.fire(figures(word["stats"] as Stats));
        break;
      case "EVENT":
        this.onCallEvent.fire({ event: String(word["event"]) });
        break;
      default:
        session?.take(word);
    }
  }
}

/** A call. One object may have several, one after the other. */
export class MediaSession {
  readonly onRemoteStream = new Callbacks<{ stream: MediaStream }>();
  readonly onSessionHold = new Callbacks<boolean>();
  private peer: RTCPeerConnection | undefined;
  private offerer = "";
  private answerer = "";
  private seq = 0;
  private remote = "";
  private settled = false;
  private refused = false;
  private data: { key: string; value: string }[] = [];
  private timer: ReturnType<typeof setTimeout> | undefined;
  private chain: Promise<unknown> = Promise.resolve();

  constructor(private readonly client: Client) {
    client.adopt(this);
  }

  /** Calls a number. Video is not carried. */
  makeCall(remoteId: string, _audio = true, _video = true): void {
    this.makeOffer(remoteId);
  }

  /** Calls a number, or offers anew within the call: after a failure of ICE, to hold, to resume. */
  makeOffer(remoteId = "", _audio = true, _video = true, hold = false): void {
    if (this.peer && this.answerer) {
      this.again(hold ? "inactive" : "sendrecv", true);
      return;
    }
    if (!remoteId) throw new GrtcError("INVALID_STATE_ERROR", "there is no call");
    this.remote = String(remoteId);
    this.begin();
  }

  /** Takes the call that rings. */
  acceptCall(_audio = true, _video = true, remoteId = ""): void {
    const invite = this.client.invite;
    if (!invite) throw new GrtcError("INVALID_STATE_ERROR", "there is no incoming call");
    this.client.invite = undefined;
    this.remote = remoteId || String(invite["from"] ?? "");
    this.answerer = String(invite["answererSessionId"]);
    const headers = (invite["headers"] as [string, string][] | undefined) ?? [];
    this.data = headers.map(([key, value]) => ({ key: key.replace(/^x-/i, ""), value }));
    this.begin();
  }

  /** Does not take it. */
  rejectCall(): void {
    const invite = this.client.invite;
    if (!invite) throw new GrtcError("INVALID_STATE_ERROR", "there is no incoming call");
    this.client.invite = undefined;
    this.send({ messageType: "BYE", answererSessionId: invite["answererSessionId"], offererSessionId: "", seq: 1 });
  }

  /** Nothing is sent nor heard until {@link resumeCall}. */
  holdCall(): void {
    this.again("inactive", false);
  }

  resumeCall(): void {
    this.again("sendrecv", false);
  }

  /** Sends sound or silence. */
  updateCall(audio = true, _video = true): void {
    for (const sender of this.peer?.getSenders() ?? []) if (sender.track) sender.track.enabled = audio;
  }

  /** Ends the call. */
  terminateCall(): void {
    this.closeSession(true);
  }

  /** Ends the call here, and for the far side where `sendBye` says so. */
  closeSession(sendBye = false): void {
    if (sendBye && this.offerer) this.send(this.word("BYE"));
    this.close();
  }

  /** Sends digits; whether they can be sent. Milliseconds. */
  sendDTMF(tones: string, { duration = 100, tonegap = 50 }: { duration?: number; tonegap?: number } = {}): boolean {
    const sender = this.peer?.getSenders().find(one => one.track?.kind === "audio")?.dtmf;
    if (!sender?.canInsertDTMF) return false;
    sender.insertDTMF(tones, Math.min(6000, Math.max(70, duration)), Math.max(50, tonegap));
    return true;
  }

  /** Sends user data to the far end. */
  sendInfo(data: unknown, _mapToSip = true): void {
    this.send({ ...this.word("INFO"), contentType: "application/json", body: JSON.stringify(data) });
  }

  /** Data that goes along with the next call: as headers `X-KEY` of its INVITE. */
  setData(data: { key: string; value: string }[] | Record<string, string>): void {
    this.data = Array.isArray(data) ? data : Object.entries(data).map(([key, value]) => ({ key, value: String(value) }));
  }

  /** Data that came along. */
  getData(): { key: string; value: string }[] {
    return this.data;
  }

  /** Asks for figures; they come to `onStatsFromServer`. */
  getServerStats(): void {
    this.send({ ...this.word("STATS") });
  }

  isEstablished(): boolean {
    return this.settled;
  }

  /** @internal */
  isIdle(): boolean {
    return !this.peer;
  }

  /** @internal */
  isOf(word: Word): boolean {
    return this.offerer !== "" && word["offererSessionId"] === this.offerer;
  }

  /** @internal */
  close(): void {
    clearTimeout(this.timer);
    this.peer?.close();
    [this.peer, this.offerer, this.answerer, this.seq, this.settled] = [undefined, "", "", 0, false];
  }

  /** @internal */
  take(word: Word): void {
    if (word.messageType === "ANSWER") void this.answered(word);
    else if (word.messageType === "ERROR") this.failed(word);
  }

  private word(messageType: string): Word {
    return { messageType, offererSessionId: this.offerer, answererSessionId: this.answerer, seq: this.seq };
  }

  private send(word: Record<string, unknown>, to = ""): void {
    this.client.say(word, to).catch((error: Error) => this.client.onGatewayError.fire({ message: error.message, error: error.name }));
  }

  private begin(): void {
    const stream = this.client.stream;
    if (!stream) throw new GrtcError("INVALID_STATE_ERROR", "enableMediaSource comes first");
    if (this.peer) throw new GrtcError("INVALID_STATE_ERROR", "there is a call");
    const peer = new RTCPeerConnection({ iceServers: this.client.iceServers(), bundlePolicy: "max-bundle" });
    this.peer = peer;
    this.offerer = Array.from(crypto.getRandomValues(new Uint8Array(16)), octet => octet.toString(16).padStart(2, "0")).join("");
    stream.getAudioTracks().forEach(track => peer.addTrack(track, stream));
    peer.ontrack = event => this.onRemoteStream.fire({ stream: event.streams[0] ?? new MediaStream([event.track]) });
    peer.oniceconnectionstatechange = () => {
      if (peer.iceConnectionState === "failed" || peer.iceConnectionState === "disconnected") this.client.onIceDisconnected.fire({});
    };
    const patience = Math.max(NO_ANSWER_LEAST_MS, number(this.client.configuration.noanswer_timeout, NO_ANSWER_MS));
    this.timer = setTimeout(() => this.peer === peer && !this.settled && this.client.onPeerNoanswer.fire({}), patience);
    this.offer(peer, {});
  }

  /** Offers do not overtake each other. */
  private again(direction: RTCRtpTransceiverDirection, restart: boolean): void {
    const peer = this.peer;
    if (!peer || !this.settled) throw new GrtcError("INVALID_STATE_ERROR", "there is no established call");
    this.chain = this.chain.then(() => {
      if (this.peer !== peer) return;
      this.refused = false;
      for (const one of peer.getTransceivers()) one.direction = direction;
      this.offer(peer, { iceRestart: restart });
      return new Promise(resolve => {
        const look = () => (peer.signalingState === "have-local-offer" || resolve(undefined));
        peer.addEventListener("signalingstatechange", look);
        setTimeout(resolve, NO_ANSWER_LEAST_MS);
      });
    }).then(() => this.peer === peer && !this.refused && this.onSessionHold.fire(direction === "inactive"));
  }

  private offer(peer: RTCPeerConnection, options: RTCOfferOptions): void {
    void (async () => {
      await peer.setLocalDescription(await peer.createOffer(options));
      await gathered(peer, number(this.client.configuration.ice_timeout, SPEAK_MS));
      if (this.peer !== peer) return;
      this.seq++;
      const first = !this.settled && this.answerer === "";
      const data = Object.fromEntries(this.data.map(({ key, value }) => [/^x-/i.test(key) ? key : `X-${key}`, value]));
      const tieBreaker = crypto.getRandomValues(new Uint32Array(1))[0];
      const word = { ...this.word("OFFER"), tieBreaker, sdp: this.filtered(peer), ...(first && this.data.length && { data }) };
      await this.client.say(word, first ? this.remote : "");
    })().catch((error: Error) => {
      if (this.peer !== peer) return;
      this.client.onWebrtcError.fire({ message: error.message });
      if (!this.settled) this.close();
    });
  }

  /** The offer with those candidates that the page lets pass. */
  private filtered(peer: RTCPeerConnection): string {
    const lines = (peer.localDescription?.sdp ?? "").split("\r\n");
    const own = lines.filter(line => line.startsWith("a=candidate:")).map(line => ({ candidate: line.slice(2) }));
    const kept = new Set(this.client.filterIceCandidates(own).map(one => `a=${one.candidate}`));
    return lines.filter(line => !line.startsWith("a=candidate:") || kept.has(line)).join("\r\n");
  }

  private async answered(word: Word): Promise<void> {
    const peer = this.peer;
    if (!peer || word["seq"] !== this.seq || peer.signalingState !== "have-local-offer") return;
    try {
      await peer.setRemoteDescription({ type: "answer", sdp: String(word["sdp"]) });
      clearTimeout(this.timer);
      this.answerer = String(word["answererSessionId"]);
      this.settled = true;
      this.send(this.word("OK"));
    } catch (error) {
      this.client.onWebrtcError.fire({ message: (error as Error).message });
    }
  }

  private failed(word: Word): void {
    const peer = this.peer;
    this.client.onGatewayError.fire({ message: String(word["detail"] ?? ""), error: String(word["errorType"] ?? "") });
    if (this.settled) {
      // A renegotiation that failed leaves the call as it was.
      this.refused = true;
      if (peer?.signalingState === "have-local-offer") void peer.setLocalDescription({ type: "rollback" });
      return;
    }
    const unanswered = word["errorType"] === "TIMEOUT";
    this.close();
    if (unanswered) this.client.onPeerNoanswer.fire({});
    else this.client.onPeerClosing.fire({});
  }
}

interface Stats {
  created?: number;
  media?: { directions?: { from: string; packets: number; octets: number; lost: number }[] };
}

/** The appliance's figures in the guide's form. What it does not measure is 0. */
function figures(stats: Stats): Record<string, unknown> {
  const side = (from: string) => {
    const one = stats?.media?.directions?.find(direction => direction.from === from);
    return { packets: one?.packets ?? 0, bytes: one?.octets ?? 0, lost: one?.lost ?? 0, jitter: 0 };
  };
  const timestamp = Date.now();
  const audio = { rx: side("outside"), tx: side("inside"), rtt: 0, rtt_max: 0, rtt_average: 0 };
  return { timestamp, duration: timestamp - (stats?.created ?? timestamp), audio };
}

/** User data as an object where it is one. */
function told(word: Word): Record<string, unknown> {
  const [kind, body] = [String(word["contentType"] ?? ""), String(word["body"] ?? "")];
  if (/json/i.test(kind)) {
    try {
      const data: unknown = JSON.parse(body);
      if (data && typeof data === "object") return data as Record<string, unknown>;
    } catch {
      // As text, then.
    }
  }
  return /urlencoded/i.test(kind) ? deparam(body) : { contentType: kind, body };
}

async function detail(answer: Response): Promise<string> {
  const body = (await answer.json().catch(() => ({}))) as { detail?: string };
  return body.detail ?? `the gateway answers ${answer.status}`;
}

/** `a=1&b=2` as an object. */
export function deparam(query: string): Record<string, string> {
  return Object.fromEntries(new URLSearchParams(query));
}

/** Whether this browser can call. */
export function isWebrtcSupported(): boolean {
  return typeof RTCPeerConnection === "function" && Boolean(navigator.mediaDevices?.getUserMedia);
}

/** `chrome`, `firefox`, `safari` or `other`. */
export function getWebrtcDetectedBrowser(): string {
  const agent = navigator.userAgent;
  return /Firefox\//.test(agent) ? "firefox" : /Chrom(e|ium)\//.test(agent) ? "chrome" : /Safari\//.test(agent) ? "safari" : "other";
}

export { GrtcError as Error };
