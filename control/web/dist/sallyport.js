// Sallyport client 0.1.0; built from control/web/src, not to be edited.

// src/emitter.ts
var Emitter = class {
  constructor() {
    this.heard = /* @__PURE__ */ new Map();
  }
  /** Calls `listener` at every event of this name; gives what ends that. */
  on(name, listener) {
    const all = this.heard.get(name) ?? /* @__PURE__ */ new Set();
    this.heard.set(name, all);
    all.add(listener);
    return () => this.off(name, listener);
  }
  /** As {@link on}, for the next event only. */
  once(name, listener) {
    const off = this.on(name, (detail) => {
      off();
      listener(detail);
    });
    return off;
  }
  /** Ends what {@link on} began. */
  off(name, listener) {
    this.heard.get(name)?.delete(listener);
  }
  /** A listener that fails keeps no other from hearing. */
  emit(name, detail) {
    for (const listener of [...this.heard.get(name) ?? []]) {
      try {
        listener(detail);
      } catch (error) {
        console.error(error);
      }
    }
  }
};

// src/media.ts
var SPEECH = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
function fragment(sdp, candidates) {
  const line = (pattern) => sdp.match(pattern)?.[0].trim();
  const media = line(/^m=.*$/m);
  const mid = line(/^a=mid:.*$/m);
  const ufrag = line(/^a=ice-ufrag:.*$/m);
  const password = line(/^a=ice-pwd:.*$/m);
  if (!media || !mid || !ufrag || !password) return void 0;
  const lines = candidates.map((one) => one ? "a=" + one.candidate : "a=end-of-candidates");
  return [ufrag, password, media, mid, ...lines, ""].join("\r\n");
}
function gathered(peer, patience) {
  return new Promise((resolve) => {
    const look = () => {
      if (peer.iceGatheringState === "complete") resolve();
    };
    peer.addEventListener("icegatheringstatechange", look);
    setTimeout(resolve, patience);
    look();
  });
}
function connected(peer, patience) {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (peer.connectionState === "connected") resolve();
      else if (peer.connectionState === "failed" || peer.connectionState === "closed") reject(new Error("no connection came about"));
    };
    peer.addEventListener("connectionstatechange", look);
    setTimeout(() => reject(new Error("no connection came about in time")), patience);
    look();
  });
}
var Meter = class {
  async read(peer) {
    const reports = /* @__PURE__ */ new Map();
    (await peer.getStats()).forEach((report) => reports.set(String(report["id"]), report));
    const all = [...reports.values()];
    const audio = (type) => all.find((one) => one["type"] === type && one["kind"] === "audio") ?? {};
    const incoming = audio("inbound-rtp");
    const outgoing = audio("outbound-rtp");
    const pair = all.find((one) => one["type"] === "candidate-pair" && one["state"] === "succeeded" && (one["nominated"] === true || one["selected"] === true)) ?? {};
    const number = (value) => typeof value === "number" ? value : 0;
    const now = {
      at: performance.now(),
      received: number(incoming["packetsReceived"]),
      lost: number(incoming["packetsLost"]),
      octetsIn: number(incoming["bytesReceived"]),
      octetsOut: number(outgoing["bytesSent"])
    };
    const then = this.before ?? { ...now, at: now.at - 1e3, received: 0, lost: 0, octetsIn: 0, octetsOut: 0 };
    this.before = now;
    const lost = Math.max(0, now.lost - then.lost);
    const expected = lost + now.received - then.received;
    const rate = (octets) => Math.max(0, Math.round(octets * 8 / Math.max(1, now.at - then.at)));
    const codec = reports.get(String(incoming["codecId"]))?.["mimeType"];
    const trip = pair["currentRoundTripTime"] ?? audio("remote-inbound-rtp")["roundTripTime"];
    const quality = {
      loss: expected > 0 ? 100 * lost / expected : 0,
      receiving: rate(now.octetsIn - then.octetsIn),
      sending: rate(now.octetsOut - then.octetsOut),
      packetsReceived: now.received,
      packetsSent: number(outgoing["packetsSent"]),
      packetsLost: now.lost,
      mos: 0
    };
    if (typeof trip === "number") quality.roundTrip = Math.round(trip * 1e3);
    if (typeof incoming["jitter"] === "number") quality.jitter = Math.round(incoming["jitter"] * 1e3);
    if (typeof codec === "string") quality.codec = codec.replace(/^audio\//i, "");
    quality.mos = mos(quality);
    return quality;
  }
};
function mos({ roundTrip = 0, jitter = 0, loss }) {
  const delay = roundTrip / 2 + 2 * jitter + 40;
  const slow = 0.024 * delay + (delay > 177.3 ? 0.11 * (delay - 177.3) : 0);
  const r = Math.max(0, Math.min(93.2, 93.2 - slow - 95 * (loss / (loss + 25))));
  return Math.round(100 * (1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)) / 100;
}

// src/words.ts
var SallyportError = class _SallyportError extends Error {
  constructor(code, detail, status, retryAfter) {
    super(detail);
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
    this.name = "SallyportError";
  }
  static of(word) {
    return new _SallyportError(
      String(word["code"]),
      String(word["detail"]),
      word["status"],
      word["retry_after"]
    );
  }
};

// src/call.ts
var RESTART_AFTER_MS = 4e3;
var RESTARTS = 4;
var GATHERING_MS = 3e3;
var TRANSFER_MS = 6e4;
var RENEWAL_MS = 3e4;
var RENEWED_MS = 2e3;
var CLAIMS = 40;
var CLAIM_MS = 250;
var Call = class extends Emitter {
  /** @internal */
  constructor(link, settings, direction, from, to, id = "") {
    super();
    this.link = link;
    this.settings = settings;
    this.direction = direction;
    this.from = from;
    this.to = to;
    this.id = id;
    this.held = { byUs: false, byThem: false };
    this.muted = false;
    this.found = [];
    this.meter = new Meter();
    this.ownMedia = true;
    this.claimed = Promise.resolve();
    this.offered = false;
    this.chain = Promise.resolve();
    this.restarts = 0;
    this.state = direction === "in" ? "incoming" : "calling";
    if (settings.play && typeof Audio !== "undefined") {
      this.player = new Audio();
      this.player.autoplay = true;
    }
  }
  /** The other party's number. */
  get party() {
    return this.direction === "in" ? this.from : this.to;
  }
  /** @internal Places the call; resolves when telephony has answered with its media, ringing or not. */
  async place(options, data, known) {
    try {
      const sdp = await this.offer(options);
      const word = { type: "call", to: this.to, sdp, data };
      const answer = await this.link.request(word, (begun) => {
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
  async answer(options = {}) {
    if (this.state !== "incoming") throw new SallyportError("gone", "the call does not ring here");
    try {
      const sdp = await this.offer(options);
      this.trickle();
      await this.answered(await this.ask({ type: "accept", sdp }));
      if (this.state === "incoming") this.enter("answered");
    } catch (error) {
      this.fail(error);
      throw error;
    }
  }
  /** Does not take it; the caller hears `status` if nobody else does. */
  async decline(status = 486) {
    await this.ask({ type: "decline", status });
    this.end("declined", "the call was declined");
  }
  /** Ends the call. */
  async hangup() {
    if (this.state === "ended") return;
    if (this.state === "incoming") return this.decline();
    const hangup = () => this.ask({ type: "hangup" });
    try {
      if (this.id) await hangup().catch((error) => this.lost(error) ? hangup() : void 0);
    } catch {
    } finally {
      this.end("hang_up", "the call was hung up");
    }
  }
  lost(error) {
    return error instanceof SallyportError && error.code === "unknown_session";
  }
  /** Nothing is sent nor heard until {@link resume}. */
  async hold() {
    await this.turn("inactive");
    this.mark({ byUs: true });
  }
  /** Goes on after {@link hold}. */
  async resume() {
    await this.turn("sendrecv");
    this.mark({ byUs: false });
  }
  /** Sends silence; tells nobody. */
  mute(muted = true) {
    this.muted = muted;
    for (const track of this.local?.getAudioTracks() ?? []) track.enabled = !muted;
  }
  /** Sends digits `0-9A-D*#`, each so long, with pauses between, in milliseconds. */
  async dtmf(digits, { duration = 100, gap = 70 } = {}) {
    const sender = this.peer?.getSenders().find((one) => one.track?.kind === "audio")?.dtmf;
    if (sender?.canInsertDTMF) sender.insertDTMF(digits, duration, gap);
    else await this.ask({ type: "dtmf", digits, duration });
  }
  /** Connects the far end with a number, or with the far end of another call of ours. Resolves when those two talk. */
  async transfer(target) {
    const where = typeof target === "string" ? { to: target } : { onto: target.id };
    const outcome = new Promise((resolve, reject) => {
      const timer = setTimeout(() => finish(408), TRANSFER_MS);
      const off = [this.on("transfer", (status) => finish(status)), this.on("ended", () => finish(200))];
      const finish = (status) => {
        if (status < 200) return;
        clearTimeout(timer);
        off.forEach((one) => one());
        if (status < 300) resolve();
        else reject(new SallyportError("transfer", `the transfer failed with ${status}`, status));
      };
    });
    outcome.catch(() => void 0);
    await this.ask({ type: "transfer", ...where });
    return outcome;
  }
  /** Sends user data to the far end. */
  async sendData(data, contentType = "application/json") {
    const body = typeof data === "string" ? data : JSON.stringify(data);
    await this.ask({ type: "info", content_type: contentType, body });
  }
  /** How the call sounds here. */
  stats() {
    if (!this.peer) return Promise.reject(new SallyportError("gone", "the call has no media"));
    return this.meter.read(this.peer);
  }
  /** The call as the appliance sees it, as REST gives it. */
  async serverStats() {
    return (await this.ask({ type: "stats" }))["stats"];
  }
  /** Goes on with another microphone. */
  async useMicrophone(media) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: media });
    const track = stream.getAudioTracks()[0] ?? null;
    const sender = this.peer?.getSenders().find((one) => one.track?.kind === "audio");
    await sender?.replaceTrack(track);
    if (this.ownMedia) this.local?.getTracks().forEach((one) => one.stop());
    this.local = stream;
    this.mute(this.muted);
  }
  /**
   * Adds a picture to a call of sound: the camera's, that of a stream of yours, or with `null` the far side's alone. Fails with
   * `refused` where the far side takes none; the call goes on.
   */
  async addVideo(media = {}) {
    const stream = media === null || media instanceof MediaStream ? media : await navigator.mediaDevices.getUserMedia({ video: media });
    const track = stream?.getVideoTracks()[0];
    const streams = this.local ? [this.local] : [];
    let added;
    try {
      await this.renegotiate((peer) => {
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
  take(word) {
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
  claim() {
    this.claimed = this.reclaim();
  }
  async reclaim() {
    for (let attempt = 0; attempt < CLAIMS && this.state !== "ended"; attempt++) {
      try {
        await this.link.request({ type: "claim", call: this.id });
        return;
      } catch (error) {
        const code = error instanceof SallyportError ? error.code : "";
        if (code === "unknown_call") this.end("unknown_call", "the call is over");
        if (code !== "not_ready") return;
        await new Promise((resolve) => setTimeout(resolve, CLAIM_MS));
      }
    }
  }
  /** Asks of this call, once it is ours. */
  async ask(word) {
    await this.claimed;
    return this.link.request({ ...word, call: this.id });
  }
  /** Goes on by another connection: a page that was loaded anew, or whose network has changed for good. The former one plays and
   * speaks until the other one does, and goes on where nothing comes of that. */
  renew({ media } = {}) {
    const next = this.chain.then(() => this.replace(media));
    this.chain = next.catch(() => void 0);
    return next;
  }
  async replace(media) {
    if (this.state === "ended" || this.state === "incoming" || !this.id) throw new SallyportError("gone", "the call is not ours to renew");
    const former = { peer: this.peer, local: this.local, ownMedia: this.ownMedia, found: this.found };
    if (media || !this.local) await this.open(media ?? SPEECH);
    this.mute(this.muted);
    clearTimeout(this.restartTimer);
    let stream;
    const peer = this.connect((heard) => stream = heard);
    try {
      const told = this.hears("renewed", RENEWAL_MS);
      const sdp = await this.describe(peer);
      const answer = this.ask({ type: "offer", sdp });
      await this.answered(await answer);
      this.trickle();
      await Promise.race([connected(peer, RENEWAL_MS), told.then((well) => well || Promise.reject(new SallyportError("renewal", "the appliance goes on with the former connection")))]);
      await connected(peer, RENEWAL_MS);
      if (stream) this.hear(stream);
      await Promise.race([told, new Promise((resolve) => setTimeout(resolve, RENEWED_MS))]);
      if (former.ownMedia && former.local !== this.local) former.local?.getTracks().forEach((track) => track.stop());
      former.peer?.close();
    } catch (error) {
      peer.close();
      if (this.ownMedia && former.local !== this.local) this.local?.getTracks().forEach((track) => track.stop());
      if (former.peer && former.local) {
        ({ peer: this.peer, local: this.local, ownMedia: this.ownMedia, found: this.found } = { ...former, peer: former.peer, local: former.local });
        this.watch();
      }
      throw error;
    }
  }
  hears(name, patience) {
    return new Promise((resolve) => {
      const off = this.once(name, resolve);
      setTimeout(() => (off(), resolve(false)), patience);
    });
  }
  /** @internal A call of the page before it was loaded anew. */
  goOn() {
    this.enter("connected");
  }
  /** @internal The path may have changed: a call that is cut off looks for another at once. */
  refresh() {
    if (this.peer && ["disconnected", "failed"].includes(this.peer.iceConnectionState)) this.restart();
  }
  /** @internal */
  end(cause, detail) {
    if (this.state === "ended") return;
    clearInterval(this.qualityTimer);
    clearTimeout(this.restartTimer);
    if (this.ownMedia) this.local?.getTracks().forEach((track) => track.stop());
    this.peer?.close();
    if (this.player) this.player.srcObject = null;
    this.cause = cause;
    this.enter("ended");
    this.emit("ended", { cause, detail });
  }
  fail(error) {
    const code = error instanceof SallyportError ? error.code : "media";
    if (this.id && this.state !== "ended" && !(error instanceof SallyportError)) {
      void this.ask({ type: this.state === "incoming" ? "decline" : "hangup" }).catch(() => void 0);
    }
    this.end(code, String(error instanceof Error ? error.message : error));
  }
  enter(state) {
    if (this.state === state || this.state === "ended") return;
    this.state = state;
    if (state === "connected" && this.settings.qualityInterval > 0 && !this.qualityTimer) {
      this.qualityTimer = setInterval(() => {
        void this.stats().then((quality) => this.state !== "ended" && this.emit("quality", quality), () => void 0);
      }, this.settings.qualityInterval);
    }
    this.emit("state", state);
  }
  mark(change) {
    this.held = { ...this.held, ...change };
    this.emit("hold", this.held);
  }
  async offer({ media = SPEECH }) {
    await this.open(media);
    const peer = this.connect((stream) => this.hear(stream));
    return this.describe(peer);
  }
  async open(media) {
    this.ownMedia = !(media instanceof MediaStream);
    this.local = media instanceof MediaStream ? media : await navigator.mediaDevices.getUserMedia({ audio: media });
  }
  hear(stream) {
    this.remote = stream;
    if (this.player) this.player.srcObject = stream;
    this.emit("media", stream);
  }
  /** Another connection, which is the call's from now on. */
  connect(heard) {
    const peer = new RTCPeerConnection({ iceServers: this.settings.iceServers, bundlePolicy: "max-bundle" });
    const found = [];
    this.peer = peer, this.found = found, this.offered = false;
    for (const track of this.local?.getTracks() ?? []) peer.addTrack(track, this.local);
    peer.ontrack = (event) => heard(event.streams[0] ?? new MediaStream([event.track]));
    peer.onicecandidate = (event) => {
      if (event.candidate && !event.candidate.candidate) return;
      found.push(event.candidate);
      if (this.peer === peer) this.trickle();
    };
    peer.oniceconnectionstatechange = () => this.peer === peer && this.watch();
    return peer;
  }
  async describe(peer) {
    await peer.setLocalDescription(await peer.createOffer());
    if (!this.settings.trickle) await gathered(peer, GATHERING_MS);
    return this.described();
  }
  described() {
    this.offered = true;
    this.found.length = this.settings.trickle ? this.found.length : 0;
    return this.peer?.localDescription?.sdp ?? "";
  }
  trickle() {
    if (!this.id || !this.offered || !this.settings.trickle || this.found.length === 0 || !this.peer?.localDescription) return;
    const text = fragment(this.peer.localDescription.sdp, this.found.splice(0));
    if (text) void this.ask({ type: "candidate", fragment: text }).catch(() => void 0);
  }
  async answered(word) {
    await this.peer?.setRemoteDescription({ type: "answer", sdp: String(word["sdp"]) });
  }
  /** One after the other: offers do not overtake each other. */
  renegotiate(change, options = {}) {
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
    this.chain = next.catch(() => void 0);
    return next;
  }
  async turn(direction) {
    const former = /* @__PURE__ */ new Map();
    try {
      await this.renegotiate((peer) => {
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
  watch() {
    const state = this.peer?.iceConnectionState;
    clearTimeout(this.restartTimer);
    if (state === "connected" || state === "completed") this.restarts = 0;
    else if (state === "disconnected") this.restartTimer = setTimeout(() => this.restart(), RESTART_AFTER_MS);
    else if (state === "failed") this.restart();
  }
  restart() {
    if (this.state === "ended" || this.state === "incoming" || this.link.state !== "up") return;
    if (this.restarts++ >= RESTARTS) return;
    this.renegotiate(() => void 0, { iceRestart: true }).catch(() => void 0);
  }
};

// src/link.ts
var PROTOCOL = "sallyport.v1";
var PING_MS = 2e4;
var PONG_MS = 6e3;
var SLOWEST_MS = 8e3;
var OVER = 4e3;
var REPLACED = 4001;
var Link = class extends Emitter {
  constructor(url, reconnect) {
    super();
    this.url = url;
    this.reconnect = reconnect;
    this.state = "idle";
    this.session = "";
    this.number = null;
    this.credentials = {};
    this.seq = 0;
    this.refs = 0;
    this.attempts = 0;
    this.pending = /* @__PURE__ */ new Map();
    this.online = () => this.hurry();
    this.answered = true;
  }
  /** Connects and signs in, or goes on with a session. */
  signIn(credentials, kept) {
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
  request(word, begun) {
    if (this.state === "idle") return Promise.reject(new SallyportError("not_signed_in", "sign in first"));
    const ref = String(++this.refs);
    return new Promise((resolve, reject) => {
      const pending = { word: { ...word, ref }, resolve, reject };
      if (begun) pending.begun = begun;
      this.pending.set(ref, pending);
      if (this.state === "up") this.write(pending.word);
    });
  }
  /** Another token for the next sign-in. */
  remember(token) {
    this.credentials = { ...this.credentials, token };
  }
  /** What is to be kept where the page goes; `undefined` without a session. */
  kept() {
    const { session, number, seq, refs } = this;
    return session ? { session, number, seq, refs } : void 0;
  }
  /** Signs out for good. */
  close() {
    if (this.state === "up") this.write({ type: "sign_out" });
    this.end(new SallyportError("signed_out", "signed out"));
  }
  /** Tries at once to come back. */
  hurry() {
    if (this.state !== "waiting") return;
    clearTimeout(this.timer);
    this.attempts = 0;
    this.connect();
  }
  change(state) {
    if (this.state === state) return;
    this.state = state;
    this.emit("state", state);
  }
  write(word) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(word));
  }
  connect() {
    this.change(this.session ? "waiting" : "connecting");
    const socket = new WebSocket(this.url, PROTOCOL);
    this.socket = socket;
    const patience = setTimeout(() => socket.close(), 1e4);
    socket.onopen = () => this.write(this.greeting());
    socket.onmessage = (event) => {
      if (this.socket === socket) this.take(JSON.parse(event.data));
      if (this.state === "up") clearTimeout(patience);
    };
    socket.onclose = (event) => {
      clearTimeout(patience);
      if (this.socket === socket) this.dropped(event.code);
    };
  }
  greeting() {
    if (this.session) return { type: "sign_in", ref: "in", session: this.session, seq: this.seq };
    const { number, password, token, displayName } = this.credentials;
    return { type: "sign_in", ref: "in", number, password, token, display_name: displayName };
  }
  take(word) {
    if (word.seq !== void 0) {
      if (word.seq <= this.seq) return;
      this.seq = word.seq;
    }
    if (word.ref === "in") this.entered(word);
    else if (word.type === "signed_out") this.end(new SallyportError(String(word["reason"]), "the session has ended"), true);
    else if (word.type === "pong") this.answered = true;
    else if (word.ref !== void 0) this.settle(String(word.ref), word);
    else this.emit("word", word);
  }
  settle(ref, word) {
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
  entered(word) {
    if (word.type === "error") {
      const error = SallyportError.of(word);
      if (error.code === "unknown_session") this.renew();
      else this.end(error, true);
      return;
    }
    this.session = String(word["session"]);
    this.number = word["number"] ?? null;
    this.attempts = 0;
    this.beat();
    this.change("up");
    for (const { word: word2 } of this.pending.values()) this.write(word2);
    this.entering?.resolve(word);
    delete this.entering;
  }
  /** The server does not know the session any more: a new one, in which nothing of the former is under way. */
  renew() {
    this.session = "";
    this.seq = 0;
    const lost = new SallyportError("unknown_session", "the session was lost");
    for (const pending of this.pending.values()) pending.reject(lost);
    this.pending.clear();
    this.emit("renewed", void 0);
    this.write(this.greeting());
  }
  beat() {
    clearInterval(this.pulse);
    this.pulse = setInterval(() => {
      this.answered = false;
      this.write({ type: "ping" });
      const socket = this.socket;
      setTimeout(() => {
        if (!this.answered && this.socket === socket) {
          socket?.close();
          this.dropped(0);
        }
      }, PONG_MS);
    }, PING_MS);
  }
  dropped(code) {
    clearInterval(this.pulse);
    delete this.socket;
    const error = code === REPLACED ? new SallyportError("replaced", "another page goes on with this session") : new SallyportError("connection", "the appliance cannot be reached");
    if (code === OVER || code === REPLACED || !this.reconnect || this.entering && this.attempts > 2) {
      this.end(error, true);
      return;
    }
    this.change("waiting");
    const pause = Math.min(SLOWEST_MS, 250 * 2 ** this.attempts++) * (0.5 + Math.random() / 2);
    this.timer = setTimeout(() => this.connect(), pause);
  }
  end(error, told = false) {
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
};

// src/client.ts
var LEFT = "sallyport";
var Sallyport = class extends Emitter {
  constructor(options = {}) {
    super();
    /** Calls that are not over. */
    this.calls = /* @__PURE__ */ new Set();
    const rest = new URL(options.url ?? "/", location.href).href.replace(/\/+$/, "");
    this.token = options.token;
    this.settings = {
      iceServers: options.iceServers ?? [],
      trickle: options.trickle ?? true,
      play: options.play ?? true,
      qualityInterval: options.qualityInterval ?? 2e3
    };
    this.link = new Link(rest.replace(/^http/, "ws") + "/v1/socket", options.reconnect ?? true);
    this.link.on("state", (state) => {
      this.emit("connection", state);
      if (state === "up") this.calls.forEach((call) => call.refresh());
    });
    this.link.on("word", (word) => this.take(word));
    this.link.on("renewed", () => this.renewed());
    this.link.on("over", (error) => this.over(error));
    globalThis.addEventListener?.("pagehide", (event) => {
      if (!event.persisted && !(options.keep && this.leave())) this.link.close();
    });
  }
  /** State of the connection. */
  get connection() {
    return this.link.state;
  }
  /** The number under which this browser is called; `null` for a customer. */
  get number() {
    return this.link.number;
  }
  /** Signs in: an agent with its number, a customer without. */
  signIn(credentials = {}) {
    const token = credentials.token ?? this.token;
    const entering = this.link.signIn(token === void 0 ? credentials : { ...credentials, token });
    this.entering = entering;
    entering.catch(() => this.entering = void 0);
    return entering;
  }
  /** Stays signed in by another token, before the one in use expires; a session whose token has expired ends with its last call. */
  async renew(token) {
    this.link.remember(token);
    await this.link.request({ type: "renew", token });
  }
  /** Goes on with the calls of the page that was here before, in this tab; it was made with `keep`. Another connection of ours
   * takes each of them up. `credentials`: for the case that the session is lost meanwhile. */
  async restore({ media, ...credentials } = {}) {
    const text = sessionStorage.getItem(LEFT);
    sessionStorage.removeItem(LEFT);
    if (!text) return [];
    const { kept, calls } = JSON.parse(text);
    const ours = calls.map(({ id, direction, from, to, muted }) => {
      const call = new Call(this.link, this.settings, direction, from, to, id);
      call.muted = muted;
      call.goOn();
      return this.add(call);
    });
    const token = credentials.token ?? this.token;
    this.entering = this.link.signIn(token === void 0 ? credentials : { ...credentials, token }, kept);
    await this.entering;
    await Promise.all(ours.map((call) => call.renew(media ? { media } : {}).catch((error) => {
      call.end(error instanceof SallyportError ? error.code : "media", String(error));
    })));
    return ours.filter((call) => call.state !== "ended");
  }
  /** Whether there is something to be left for the next page. */
  leave() {
    const kept = this.link.kept();
    const calls = [...this.calls].filter((call) => call.state === "connected");
    if (!kept || calls.length === 0) return false;
    const left = { kept, calls: calls.map(({ id, direction, from, to, muted }) => ({ id, direction, from, to, muted })) };
    sessionStorage.setItem(LEFT, JSON.stringify(left));
    return true;
  }
  /** Signs out; calls end. */
  async signOut() {
    this.entering = void 0;
    this.link.close();
    for (const call of [...this.calls]) call.end("signed_out", "signed out");
  }
  /** Calls a number; signs in as a customer where nobody is signed in yet. `data`: headers of the INVITE, `X-...`. What becomes
   * of the call is told by its events. */
  call(to, options = {}) {
    const call = this.add(new Call(this.link, this.settings, "out", this.number ?? "", to));
    const ready = this.link.state === "idle" || !this.entering ? this.signIn() : this.entering;
    ready.then(() => call.place(options, options.data, () => void 0)).catch((error) => call.end(error instanceof SallyportError ? error.code : "media", String(error)));
    return call;
  }
  add(call) {
    this.calls.add(call);
    call.on("ended", () => this.calls.delete(call));
    this.emit("call", call);
    return call;
  }
  take(word) {
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
  renewed() {
    for (const call of [...this.calls]) {
      if (call.state === "connected") call.claim();
      else call.end("unknown_session", "the session was lost");
    }
  }
  over(error) {
    this.entering = void 0;
    for (const call of [...this.calls]) call.end(error.code, error.message);
    this.emit("signedout", error);
  }
};
export {
  Call,
  Sallyport,
  SallyportError
};
