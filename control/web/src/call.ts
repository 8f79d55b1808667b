import { Emitter } from "./emitter.js";
import { Link } from "./link.js";
import { Meter, Quality, SPEECH, connected, fragment, gathered } from "./media.js";
import { SallyportError, Word } from "./words.js";

/** Where a call stands; `incoming`: it rings here. */
export type CallState = "incoming" | "calling" | "ringing" | "early" | "answered" | "connected" | "ended";

/** What happens to a call. */
export interface CallEvents {
  /** Every change of {@link Call.state}. */
  state: CallState;
  /** The far side's sound. */
  media: MediaStream;
  /** Hold by the far end began or ended, or by us. */
  hold: { byUs: boolean; byThem: boolean };
  /** A digit of the far end. */
  dtmf: { digit: string; duration: number };
  /** User data of the far end. */
  data: { contentType: string; body: string };
  /** How far a transfer is: a SIP status. */
  transfer: number;
  /** Whether its sound is copied to a recorder, or to somebody who listens in. */
  recording: boolean;
  /** The SIP server wants the call to be taken or resumed (`talk`), or held. */
  asked: "talk" | "hold";
  /** Another connection took the place of the former one ({@link Call.renew}), or did not. */
  renewed: boolean;
  /** The far side wants to show a picture, and this call has none: {@link Call.addVideo} adds one. */
  video: "offered";
  /** Every two seconds while connected. */
  quality: Quality;
  /** The last event. */
  ended: { cause: string; detail: string };
}

/** How a call's media are made. */
export interface MediaOptions {
  /** A stream of yours, with a picture if it has one, or what to ask the microphone for. */
  media?: MediaStream | MediaTrackConstraints;
}

/** What calls need of their client. */
export interface Settings {
  iceServers: RTCIceServer[];
  /** Candidates follow the offer as they are found. */
  trickle: boolean;
  /** Whether the far side is played by itself. */
  play: boolean;
  qualityInterval: number;
}

const RESTART_AFTER_MS = 4000;
const RESTARTS = 4;
const GATHERING_MS = 3000;
const TRANSFER_MS = 60_000;
const RENEWAL_MS = 30_000;
const RENEWED_MS = 2000;
const CLAIMS = 40;
const CLAIM_MS = 250;

/** A call, from the first ring to the end. */
export class Call extends Emitter<CallEvents> {
  state: CallState;
  /** The far side's sound, once there is some. */
  remote?: MediaStream;
  /** What is sent. */
  local?: MediaStream;
  held = { byUs: false, byThem: false };
  muted = false;
  cause?: string;
  peer?: RTCPeerConnection;
  private found: (RTCIceCandidate | null)[] = [];
  private readonly meter = new Meter();
  private readonly player?: HTMLAudioElement;
  private ownMedia = true;
  private claimed: Promise<void> = Promise.resolve();
  private offered = false;
  private chain: Promise<unknown> = Promise.resolve();
  private restarts = 0;
  private restartTimer?: ReturnType<typeof setTimeout>;
  private qualityTimer?: ReturnType<typeof setInterval>;

  /** @internal */
  constructor(
    private readonly link: Link,
    private readonly settings: Settings,
    readonly direction: "in" | "out",
    readonly from: string,
    readonly to: string,
    /** Name of the call at the appliance, a secret; empty before it is known. */
    public id = "",
  ) {
    super();
    this.state = direction === "in" ? "incoming" : "calling";
    if (settings.play && typeof Audio !== "undefined") {
      this.player = new Audio();
      this.player.autoplay = true;
    }
  }

  /** The other party's number. */
  get party(): string {
    return this.direction === "in" ? this.from : this.to;
  }

  /** @internal Places the call; resolves when telephony has answered with its media, ringing or not. */
  async place(options: MediaOptions, data: Record<string, string> | undefined, known: (call: Call) => void): Promise<void> {
    try {
      const sdp = await this.offer(options);
      const word = { type: "call", to: this.to, sdp, data };
      const answer = await this.link.request(word, begun => {
        this.id = String(begun.call);
        known(this);
        this.trickle();
      });
      await this.answered(answer);
    } catch (error) {
      this.fail(error);
      throw error;
    }
  }

  /** Takes a call that rings here. */
  async answer(options: MediaOptions = {}): Promise<void> {
    if (this.state !== "incoming") throw new SallyportError("gone", "the call does not ring here");
    try {
      const sdp = await this.offer(options);
      this.trickle();
      await this.answered(await this.ask({ type: "accept", sdp }));
      if ((this.state as CallState) === "incoming") this.enter("answered");
    } catch (error) {
      this.fail(error);
      throw error;
    }
  }

  /** Does not take it; the caller hears `status` if nobody else does. */
  async decline(status = 486): Promise<void> {
    await this.ask({ type: "decline", status });
    this.end("declined", "the call was declined");
  }

  /** Ends the call. */
  async hangup(): Promise<void> {
    if (this.state === "ended") return;
    if (this.state === "incoming") return this.decline();
    const hangup = () => this.ask({ type: "hangup" });
    try {
      // Asked of a control that was replaced on the way, it is asked of the next one.
      if (this.id) await hangup().catch((error: unknown) => this.lost(error) ? hangup() : undefined);
    } catch {
      // It is over, one way or the other.
    } finally {
      this.end("hang_up", "the call was hung up");
    }
  }

  private lost(error: unknown): boolean {
    return error instanceof SallyportError && error.code === "unknown_session";
  }

  /** Nothing is sent nor heard until {@link resume}. */
  async hold(): Promise<void> {
    await this.turn("inactive");
    this.mark({ byUs: true });
  }

  /** Goes on after {@link hold}. */
  async resume(): Promise<void> {
    await this.turn("sendrecv");
    this.mark({ byUs: false });
  }

  /** Sends silence; tells nobody. */
  mute(muted = true): void {
    this.muted = muted;
    for (const track of this.local?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** Sends digits `0-9A-D*#`, each so long, with pauses between, in milliseconds. */
  async dtmf(digits: string, { duration = 100, gap = 70 } = {}): Promise<void> {
    const sender = this.peer?.getSenders().find(one => one.track?.kind === "audio")?.dtmf;
    if (sender?.canInsertDTMF) sender.insertDTMF(digits, duration, gap);
    else await this.ask({ type: "dtmf", digits, duration });
  }

  /** Connects the far end with a number, or with the far end of another call of ours. Resolves when those two talk. */
  async transfer(target: string | Call): Promise<void> {
    const where = typeof target === "string" ? { to: target } : { onto: target.id };
    const outcome = new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => finish(408), TRANSFER_MS);
      const off = [this.on("transfer", status => finish(status)), this.on("ended", () => finish(200))];
      const finish = (status: number) => {
        if (status < 200) return;
        clearTimeout(timer);
        off.forEach(one => one());
        if (status < 300) resolve();
        else reject(new SallyportError("transfer", `the transfer failed with ${status}`, status));
      };
    });
    outcome.catch(() => undefined);
    await this.ask({ type: "transfer", ...where });
    return outcome;
  }

  /** Sends user data to the far end. */
  async sendData(data: unknown, contentType = "application/json"): Promise<void> {
    const body = typeof data === "string" ? data : JSON.stringify(data);
    await this.ask({ type: "info", content_type: contentType, body });
  }

  /** How the call sounds here. */
  stats(): Promise<Quality> {
    if (!this.peer) return Promise.reject(new SallyportError("gone", "the call has no media"));
    return this.meter.read(this.peer);
  }

  /** The call as the appliance sees it, as REST gives it. */
  async serverStats(): Promise<Record<string, unknown>> {
    return (await this.ask({ type: "stats" }))["stats"] as Record<string, unknown>;
  }

  /** Goes on with another microphone. */
  async useMicrophone(media: MediaTrackConstraints): Promise<void> {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: media });
    const track = stream.getAudioTracks()[0] ?? null;
    const sender = this.peer?.getSenders().find(one => one.track?.kind === "audio");
    await sender?.replaceTrack(track);
    if (this.ownMedia) this.local?.getTracks().forEach(one => one.stop());
    this.local = stream;
    this.mute(this.muted);
  }

  /**
   * Adds a picture to a call of sound: the camera's, that of a stream of yours, or with `null` the far side's alone. Fails with
   * `refused` where the far side takes none; the call goes on.
   */
  async addVideo(media: MediaStream | MediaTrackConstraints | null = {}): Promise<void> {
    const stream = media === null || media instanceof MediaStream ? media : await navigator.mediaDevices.getUserMedia({ video: media });
    const track = stream?.getVideoTracks()[0];
    const streams = this.local ? [this.local] : [];
    let added: RTCRtpTransceiver | undefined;
    try {
      await this.renegotiate(peer => {
        added = peer.addTransceiver(track ?? "video", { direction: track ? "sendrecv" : "recvonly", streams });
      });
      if (!added?.currentDirection || ["stopped", "inactive"].includes(added.currentDirection)) {
        throw new SallyportError("refused", "the far side takes no picture");
      }
    } catch (error) {
      if (this.state !== "ended") added?.stop();
      if (stream !== media) track?.stop();
      throw error;
    }
    if (track && stream !== media) this.local?.addTrack(track);
  }

  /** @internal */
  take(word: Word): void {
    const name = word.type === "event" ? String(word["event"]) : word.type;
    if (name === "ringing" || name === "early" || name === "answered" || name === "connected") this.enter(name);
    else if (name === "ended") this.end(String(word["cause"]), String(word["detail"]));
    else if (name === "taken") this.end("taken", "the call was taken elsewhere");
    else if (name === "held" || name === "resumed") this.mark({ byThem: name === "held" });
    else if (name === "dtmf") this.emit("dtmf", { digit: String(word["digit"]), duration: Number(word["duration"]) });
    else if (name === "info") this.emit("data", { contentType: String(word["content_type"]), body: String(word["body"]) });
    else if (name === "renewed" || name === "not_renewed") this.emit("renewed", name === "renewed");
    else if (name === "transfer") this.emit("transfer", Number(word["status"]));
    else if (name === "recording") this.emit("recording", word["recording"] === true);
    else if (name === "talk" || name === "hold") this.emit("asked", name);
    else if (name === "video_offered") this.emit("video", "offered");
  }

  /** @internal Another control is there, to which a call that talks belongs to nobody: it is made ours again. */
  claim(): void {
    this.claimed = this.reclaim();
  }

  private async reclaim(): Promise<void> {
    for (let attempt = 0; attempt < CLAIMS && this.state !== "ended"; attempt++) {
      try {
        await this.link.request({ type: "claim", call: this.id });
        return;
      } catch (error) {
        const code = error instanceof SallyportError ? error.code : "";
        if (code === "unknown_call") this.end("unknown_call", "the call is over");
        // It may not know yet which calls run.
        if (code !== "not_ready") return;
        await new Promise(resolve => setTimeout(resolve, CLAIM_MS));
      }
    }
  }

  /** Asks of this call, once it is ours. */
  private async ask(word: Word): Promise<Word> {
    await this.claimed;
    return this.link.request({ ...word, call: this.id });
  }

  /** Goes on by another connection: a page that was loaded anew, or whose network has changed for good. The former one plays and
   * speaks until the other one does, and goes on where nothing comes of that. */
  renew({ media }: MediaOptions = {}): Promise<void> {
    const next = this.chain.then(() => this.replace(media));
    this.chain = next.catch(() => undefined);
    return next;
  }

  private async replace(media: MediaOptions["media"]): Promise<void> {
    if (this.state === "ended" || this.state === "incoming" || !this.id) throw new SallyportError("gone", "the call is not ours to renew");
    const former = { peer: this.peer, local: this.local, ownMedia: this.ownMedia, found: this.found };
    if (media || !this.local) await this.open(media ?? SPEECH);
    this.mute(this.muted);
    clearTimeout(this.restartTimer);
    let stream: MediaStream | undefined;
    const peer = this.connect(heard => (stream = heard));
    try {
      const told = this.hears("renewed", RENEWAL_MS);
      const sdp = await this.describe(peer);
      const answer = this.ask({ type: "offer", sdp });
      await this.answered(await answer);
      this.trickle();
      await Promise.race([connected(peer, RENEWAL_MS), told.then(well => well || Promise.reject(new SallyportError("renewal", "the appliance goes on with the former connection")))]);
      await connected(peer, RENEWAL_MS);
      if (stream) this.hear(stream);
      // Until the appliance has taken it, what passes goes by the former one.
      await Promise.race([told, new Promise(resolve => setTimeout(resolve, RENEWED_MS))]);
      if (former.ownMedia && former.local !== this.local) former.local?.getTracks().forEach(track => track.stop());
      former.peer?.close();
    } catch (error) {
      peer.close();
      if (this.ownMedia && former.local !== this.local) this.local?.getTracks().forEach(track => track.stop());
      if (former.peer && former.local) {
        ({ peer: this.peer, local: this.local, ownMedia: this.ownMedia, found: this.found } = { ...former, peer: former.peer, local: former.local });
        this.watch();
      }
      throw error;
    }
  }

  private hears(name: "renewed", patience: number): Promise<boolean> {
    return new Promise(resolve => {
      const off = this.once(name, resolve);
      setTimeout(() => (off(), resolve(false)), patience);
    });
  }

  /** @internal A call of the page before it was loaded anew. */
  goOn(): void {
    this.enter("connected");
  }

  /** @internal The path may have changed: a call that is cut off looks for another at once. */
  refresh(): void {
    if (this.peer && ["disconnected", "failed"].includes(this.peer.iceConnectionState)) this.restart();
  }

  /** @internal */
  end(cause: string, detail: string): void {
    if (this.state === "ended") return;
    clearInterval(this.qualityTimer);
    clearTimeout(this.restartTimer);
    if (this.ownMedia) this.local?.getTracks().forEach(track => track.stop());
    this.peer?.close();
    if (this.player) this.player.srcObject = null;
    this.cause = cause;
    this.enter("ended");
    this.emit("ended", { cause, detail });
  }

  private fail(error: unknown): void {
    const code = error instanceof SallyportError ? error.code : "media";
    if (this.id && this.state !== "ended" && !(error instanceof SallyportError)) {
      void this.ask({ type: this.state === "incoming" ? "decline" : "hangup" }).catch(() => undefined);
    }
    this.end(code, String(error instanceof Error ? error.message : error));
  }

  private enter(state: CallState): void {
    if (this.state === state || this.state === "ended") return;
    this.state = state;
    if (state === "connected" && this.settings.qualityInterval > 0 && !this.qualityTimer) {
      this.qualityTimer = setInterval(() => {
        void this.stats().then(quality => this.state !== "ended" && this.emit("quality", quality), () => undefined);
      }, this.settings.qualityInterval);
    }
    this.emit("state", state);
  }

  private mark(change: Partial<Call["held"]>): void {
    this.held = { ...this.held, ...change };
    this.emit("hold", this.held);
  }

  private async offer({ media = SPEECH }: MediaOptions): Promise<string> {
    await this.open(media);
    const peer = this.connect(stream => this.hear(stream));
    return this.describe(peer);
  }

  private async open(media: MediaStream | MediaTrackConstraints): Promise<void> {
    this.ownMedia = !(media instanceof MediaStream);
    this.local = media instanceof MediaStream ? media : await navigator.mediaDevices.getUserMedia({ audio: media });
  }

  private hear(stream: MediaStream): void {
    this.remote = stream;
    if (this.player) this.player.srcObject = stream;
    this.emit("media", stream);
  }

  /** Another connection, which is the call's from now on. */
  private connect(heard: (stream: MediaStream) => void): RTCPeerConnection {
    const peer = new RTCPeerConnection({ iceServers: this.settings.iceServers, bundlePolicy: "max-bundle" });
    const found: (RTCIceCandidate | null)[] = [];
    (this.peer = peer), (this.found = found), (this.offered = false);
    for (const track of this.local?.getTracks() ?? []) peer.addTrack(track, this.local as MediaStream);
    peer.ontrack = event => heard(event.streams[0] ?? new MediaStream([event.track]));
    peer.onicecandidate = event => {
      if (event.candidate && !event.candidate.candidate) return;
      found.push(event.candidate);
      if (this.peer === peer) this.trickle();
    };
    peer.oniceconnectionstatechange = () => this.peer === peer && this.watch();
    return peer;
  }

  private async describe(peer: RTCPeerConnection): Promise<string> {
    await peer.setLocalDescription(await peer.createOffer());
    if (!this.settings.trickle) await gathered(peer, GATHERING_MS);
    return this.described();
  }

  private described(): string {
    this.offered = true;
    // What the description holds by now need not follow.
    this.found.length = this.settings.trickle ? this.found.length : 0;
    return this.peer?.localDescription?.sdp ?? "";
  }

  private trickle(): void {
    if (!this.id || !this.offered || !this.settings.trickle || this.found.length === 0 || !this.peer?.localDescription) return;
    const text = fragment(this.peer.localDescription.sdp, this.found.splice(0));
    if (text) void this.ask({ type: "candidate", fragment: text }).catch(() => undefined);
  }

  private async answered(word: Word): Promise<void> {
    await this.peer?.setRemoteDescription({ type: "answer", sdp: String(word["sdp"]) });
  }

  /** One after the other: offers do not overtake each other. */
  private renegotiate(change: (peer: RTCPeerConnection) => void, options: RTCOfferOptions = {}): Promise<void> {
    const next = this.chain.then(async () => {
      const peer = this.peer;
      if (!peer || this.state === "ended") throw new SallyportError("gone", "the call is over");
      change(peer);
      await peer.setLocalDescription(await peer.createOffer(options));
      if (options.iceRestart && !this.settings.trickle) await gathered(peer, GATHERING_MS);
      try {
        await this.answered(await this.ask({ type: "offer", sdp: this.described() }));
      } catch (error) {
        if (peer.signalingState === "have-local-offer") await peer.setLocalDescription({ type: "rollback" });
        throw error;
      }
    });
    this.chain = next.catch(() => undefined);
    return next;
  }

  private async turn(direction: RTCRtpTransceiverDirection): Promise<void> {
    const former = new Map<RTCRtpTransceiver, RTCRtpTransceiverDirection>();
    try {
      await this.renegotiate(peer => {
        for (const one of peer.getTransceivers()) {
          former.set(one, one.direction);
          one.direction = direction;
        }
      });
    } catch (error) {
      for (const [one, before] of former) if (this.state !== "ended") one.direction = before;
      throw error;
    }
  }

  private watch(): void {
    const state = this.peer?.iceConnectionState;
    clearTimeout(this.restartTimer);
    if (state === "connected" || state === "completed") this.restarts = 0;
    else if (state === "disconnected") this.restartTimer = setTimeout(() => this.restart(), RESTART_AFTER_MS);
    else if (state === "failed") this.restart();
  }

  private restart(): void {
    if (this.state === "ended" || this.state === "incoming" || this.link.state !== "up") return;
    if (this.restarts++ >= RESTARTS) return;
    this.renegotiate(() => undefined, { iceRestart: true }).catch(() => undefined);
  }
}
