// Sallyport client 0.1.0; built from control/web/src, not to be edited.
"use strict";
var Grtc = (() => {
  var __defProp = Object.defineProperty;
  var __getOwnPropDesc = Object.getOwnPropertyDescriptor;
  var __getOwnPropNames = Object.getOwnPropertyNames;
  var __hasOwnProp = Object.prototype.hasOwnProperty;
  var __export = (target, all) => {
    for (var name in all)
      __defProp(target, name, { get: all[name], enumerable: true });
  };
  var __copyProps = (to, from, except, desc) => {
    if (from && typeof from === "object" || typeof from === "function") {
      for (let key of __getOwnPropNames(from))
        if (!__hasOwnProp.call(to, key) && key !== except)
          __defProp(to, key, { get: () => from[key], enumerable: !(desc = __getOwnPropDesc(from, key)) || desc.enumerable });
    }
    return to;
  };
  var __toCommonJS = (mod) => __copyProps(__defProp({}, "__esModule", { value: true }), mod);

  // src/grtc.ts
  var grtc_exports = {};
  __export(grtc_exports, {
    Callbacks: () => Callbacks,
    Client: () => Client,
    Error: () => GrtcError,
    GrtcError: () => GrtcError,
    MediaSession: () => MediaSession,
    deparam: () => deparam,
    getWebrtcDetectedBrowser: () => getWebrtcDetectedBrowser,
    isWebrtcSupported: () => isWebrtcSupported
  });

  // src/media.ts
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

  // src/grtc.ts
  var SPEAK_MS = 3e3;
  var NO_ANSWER_MS = 6e4;
  var NO_ANSWER_LEAST_MS = 18e3;
  var POLL_MS = 3e4;
  var POLL_LEAST_MS = 1e4;
  var RETRY_MS = 3e3;
  var Callbacks = class {
    constructor() {
      this.handlers = [];
    }
    add(handler) {
      this.handlers.push(handler);
    }
    remove(handler) {
      const at = this.handlers.indexOf(handler);
      if (at >= 0) this.handlers.splice(at, 1);
    }
    /** @internal */
    fire(detail2) {
      for (const handler of [...this.handlers]) {
        try {
          if (handler(detail2) === false) return;
        } catch (error) {
          console.error(error);
        }
      }
    }
  };
  var GrtcError = class extends Error {
    constructor(name, message) {
      super(message);
      this.name = name;
    }
  };
  var number = (value, otherwise) => {
    const given = Number(value);
    return value !== void 0 && value !== "" && Number.isFinite(given) && given > 0 ? given : otherwise;
  };
  var Client = class {
    constructor(configuration) {
      this.configuration = configuration;
      this.onConnect = new Callbacks();
      this.onRegister = new Callbacks();
      this.onDisconnect = new Callbacks();
      this.onFailed = new Callbacks();
      this.onMediaSuccess = new Callbacks();
      this.onMediaFailure = new Callbacks();
      this.onIncomingCall = new Callbacks();
      this.onPeerClosing = new Callbacks();
      this.onPeerNoanswer = new Callbacks();
      this.onIceDisconnected = new Callbacks();
      this.onConnectionError = new Callbacks();
      this.onGatewayError = new Callbacks();
      this.onWebrtcError = new Callbacks();
      this.onNotifyEvent = new Callbacks();
      this.onInfoFromPeer = new Callbacks();
      this.onStatsFromServer = new Callbacks();
      this.onCallEvent = new Callbacks();
      this.sessions = /* @__PURE__ */ new Set();
      this.session = "";
      this.base = "";
      this.after = 0;
      this.generation = 0;
      const list = typeof configuration?.webrtc_gateway === "string" ? configuration.webrtc_gateway.split(",") : [];
      this.gateways = list.map((one) => one.trim().replace(/\/+$/, "")).filter(Boolean);
      if (this.gateways.length === 0 || !this.gateways.every((one) => /^https?:\/\/[^/]/.test(one))) {
        throw new GrtcError("CONFIGURATION_ERROR", "webrtc_gateway must be an HTTP URL, or several separated by commas");
      }
    }
    /** Signs in as a customer. */
    connect() {
      void this.enter({}, this.onConnect);
    }
    /** Signs in as an agent with a directory number. */
    register(dn) {
      void this.enter({ number: String(dn), password: this.configuration.sip_password ?? "" }, this.onRegister);
    }
    /** Signs out; calls end. */
    disconnect() {
      if (!this.session) return;
      void fetch(`${this.url()}/sign-out`, { method: "POST", keepalive: true }).catch(() => void 0);
      this.leave();
      this.onDisconnect.fire({});
    }
    /** Asks for the microphone. Video is not carried: `video` alone is a failure, beside audio it is ignored. */
    enableMediaSource(audio = true, video = true) {
      const wanted = audio || !video ? audio : false;
      void (async () => {
        if (!wanted) throw new GrtcError("WEBRTC_ERROR", "only audio is carried");
        this.stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
        this.onMediaSuccess.fire({ stream: this.stream });
      })().catch((error) => this.onMediaFailure.fire({ message: error.message }));
    }
    /** Gives the microphone back. */
    disableMediaSource() {
      this.stream?.getTracks().forEach((track) => track.stop());
      delete this.stream;
    }
    /** Plays a stream by an element of the page. */
    setViewFromStream(element, stream) {
      element.srcObject = stream;
      void element.play?.()?.catch(() => void 0);
    }
    /** Which candidates are told; a page may put its own in its place. */
    filterIceCandidates(candidates) {
      return candidates;
    }
    setLogLevel(_level) {
    }
    setRenewSessionOnNeed(_on) {
    }
    setMediaConstraintsForOffer(_audio, _video) {
    }
    setMediaConstraintsForAnswer(_audio, _video) {
    }
    setVideoBandwidth(_kilobits) {
    }
    /** @internal */
    iceServers() {
      const { stun_server, turn_server, turn_username, turn_password } = this.configuration;
      const urls = (list, scheme) => (list ?? "").split(",").map((one) => one.trim()).filter(Boolean).map((one) => /^(stun|turn)s?:/.test(one) ? one : `${scheme}:${one}`);
      const turn = urls(turn_server, "turn").map((url) => ({ urls: url, username: turn_username ?? "", credential: turn_password ?? "" }));
      return [...urls(stun_server, "stun").map((url) => ({ urls: url })), ...turn];
    }
    /** @internal */
    adopt(session) {
      this.sessions.add(session);
    }
    /** @internal A message to the appliance. */
    async say(word, to = "") {
      if (!this.session) throw new GrtcError("INVALID_STATE_ERROR", "sign in first");
      const answer = await fetch(this.url() + (to ? `?to=${encodeURIComponent(to)}` : ""), {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(word)
      });
      if (!answer.ok) throw new GrtcError("CONNECT_ERROR", await detail(answer));
    }
    url() {
      return `${this.base}/hanging/${this.session}`;
    }
    leave() {
      this.generation++;
      this.session = "";
      this.invite = void 0;
      for (const session of this.sessions) session.close();
    }
    async enter(who, done) {
      let flaw = "the gateway cannot be reached";
      for (const base of this.gateways) {
        try {
          const body = { ...who, token: this.configuration.sallyport_token, events: 1 };
          const answer = await fetch(`${base}/hanging/sign-in`, {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(body)
          });
          if (!answer.ok) {
            flaw = await detail(answer);
            continue;
          }
          const { session } = await answer.json();
          this.leave();
          [this.session, this.base, this.after] = [session, base, 0];
          void this.poll(this.generation);
          done.fire({});
          return;
        } catch (error) {
          flaw = error.message;
        }
      }
      this.onFailed.fire({ message: flaw });
    }
    /** One GET after the other, as long as this sign-in lasts. */
    async poll(generation) {
      const timeout = Math.max(POLL_LEAST_MS, number(this.configuration.polling_timeout, POLL_MS)) / 1e3;
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
            const word = await answer.json();
            this.after = Number(word["number"] ?? this.after);
            this.take(word);
          }
        } catch (error) {
          if (generation !== this.generation) return;
          this.onConnectionError.fire({ message: error.message });
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        }
      }
    }
    take(word) {
      const session = [...this.sessions].find((one) => one.isOf(word));
      const peer = String(word["from"] ?? "");
      switch (word.messageType) {
        case "INVITE":
          this.invite = word;
          this.onIncomingCall.fire({ peer });
          break;
        case "BYE":
          if (this.invite?.["answererSessionId"] === word["answererSessionId"]) this.invite = void 0;
          session?.close();
          this.onPeerClosing.fire({});
          break;
        case "TALK":
        case "HOLD": {
          const event = word.messageType === "TALK" ? "talk" : "hold";
          this.onNotifyEvent.fire({ event, peer });
          const taker = session ?? [...this.sessions].find((one) => one.isIdle());
          if (event === "hold") session?.holdCall();
          else if (session?.isEstablished()) session.resumeCall();
          else if (this.invite) taker?.acceptCall();
          break;
        }
        case "INFO":
          this.onInfoFromPeer.fire(told(word));
          break;
        case "STATS":
          this.onStatsFromServer.fire(figures(word["stats"]));
          break;
        case "EVENT":
          this.onCallEvent.fire({ event: String(word["event"]) });
          break;
        default:
          session?.take(word);
      }
    }
  };
  var MediaSession = class {
    constructor(client) {
      this.client = client;
      this.onRemoteStream = new Callbacks();
      this.onSessionHold = new Callbacks();
      this.offerer = "";
      this.answerer = "";
      this.seq = 0;
      this.remote = "";
      this.settled = false;
      this.refused = false;
      this.data = [];
      this.chain = Promise.resolve();
      client.adopt(this);
    }
    /** Calls a number. Video is not carried. */
    makeCall(remoteId, _audio = true, _video = true) {
      this.makeOffer(remoteId);
    }
    /** Calls a number, or offers anew within the call: after a failure of ICE, to hold, to resume. */
    makeOffer(remoteId = "", _audio = true, _video = true, hold = false) {
      if (this.peer && this.answerer) {
        this.again(hold ? "inactive" : "sendrecv", true);
        return;
      }
      if (!remoteId) throw new GrtcError("INVALID_STATE_ERROR", "there is no call");
      this.remote = String(remoteId);
      this.begin();
    }
    /** Takes the call that rings. */
    acceptCall(_audio = true, _video = true, remoteId = "") {
      const invite = this.client.invite;
      if (!invite) throw new GrtcError("INVALID_STATE_ERROR", "there is no incoming call");
      this.client.invite = void 0;
      this.remote = remoteId || String(invite["from"] ?? "");
      this.answerer = String(invite["answererSessionId"]);
      const headers = invite["headers"] ?? [];
      this.data = headers.map(([key, value]) => ({ key: key.replace(/^x-/i, ""), value }));
      this.begin();
    }
    /** Does not take it. */
    rejectCall() {
      const invite = this.client.invite;
      if (!invite) throw new GrtcError("INVALID_STATE_ERROR", "there is no incoming call");
      this.client.invite = void 0;
      this.send({ messageType: "BYE", answererSessionId: invite["answererSessionId"], offererSessionId: "", seq: 1 });
    }
    /** Nothing is sent nor heard until {@link resumeCall}. */
    holdCall() {
      this.again("inactive", false);
    }
    resumeCall() {
      this.again("sendrecv", false);
    }
    /** Sends sound or silence. */
    updateCall(audio = true, _video = true) {
      for (const sender of this.peer?.getSenders() ?? []) if (sender.track) sender.track.enabled = audio;
    }
    /** Ends the call. */
    terminateCall() {
      this.closeSession(true);
    }
    /** Ends the call here, and for the far side where `sendBye` says so. */
    closeSession(sendBye = false) {
      if (sendBye && this.offerer) this.send(this.word("BYE"));
      this.close();
    }
    /** Sends digits; whether they can be sent. Milliseconds. */
    sendDTMF(tones, { duration = 100, tonegap = 50 } = {}) {
      const sender = this.peer?.getSenders().find((one) => one.track?.kind === "audio")?.dtmf;
      if (!sender?.canInsertDTMF) return false;
      sender.insertDTMF(tones, Math.min(6e3, Math.max(70, duration)), Math.max(50, tonegap));
      return true;
    }
    /** Sends user data to the far end. */
    sendInfo(data, _mapToSip = true) {
      this.send({ ...this.word("INFO"), contentType: "application/json", body: JSON.stringify(data) });
    }
    /** Data that goes along with the next call: as headers `X-KEY` of its INVITE. */
    setData(data) {
      this.data = Array.isArray(data) ? data : Object.entries(data).map(([key, value]) => ({ key, value: String(value) }));
    }
    /** Data that came along. */
    getData() {
      return this.data;
    }
    /** Asks for figures; they come to `onStatsFromServer`. */
    getServerStats() {
      this.send({ ...this.word("STATS") });
    }
    isEstablished() {
      return this.settled;
    }
    /** @internal */
    isIdle() {
      return !this.peer;
    }
    /** @internal */
    isOf(word) {
      return this.offerer !== "" && word["offererSessionId"] === this.offerer;
    }
    /** @internal */
    close() {
      clearTimeout(this.timer);
      this.peer?.close();
      [this.peer, this.offerer, this.answerer, this.seq, this.settled] = [void 0, "", "", 0, false];
    }
    /** @internal */
    take(word) {
      if (word.messageType === "ANSWER") void this.answered(word);
      else if (word.messageType === "ERROR") this.failed(word);
    }
    word(messageType) {
      return { messageType, offererSessionId: this.offerer, answererSessionId: this.answerer, seq: this.seq };
    }
    send(word, to = "") {
      this.client.say(word, to).catch((error) => this.client.onGatewayError.fire({ message: error.message, error: error.name }));
    }
    begin() {
      const stream = this.client.stream;
      if (!stream) throw new GrtcError("INVALID_STATE_ERROR", "enableMediaSource comes first");
      if (this.peer) throw new GrtcError("INVALID_STATE_ERROR", "there is a call");
      const peer = new RTCPeerConnection({ iceServers: this.client.iceServers(), bundlePolicy: "max-bundle" });
      this.peer = peer;
      this.offerer = Array.from(crypto.getRandomValues(new Uint8Array(16)), (octet) => octet.toString(16).padStart(2, "0")).join("");
      stream.getAudioTracks().forEach((track) => peer.addTrack(track, stream));
      peer.ontrack = (event) => this.onRemoteStream.fire({ stream: event.streams[0] ?? new MediaStream([event.track]) });
      peer.oniceconnectionstatechange = () => {
        if (peer.iceConnectionState === "failed" || peer.iceConnectionState === "disconnected") this.client.onIceDisconnected.fire({});
      };
      const patience = Math.max(NO_ANSWER_LEAST_MS, number(this.client.configuration.noanswer_timeout, NO_ANSWER_MS));
      this.timer = setTimeout(() => this.peer === peer && !this.settled && this.client.onPeerNoanswer.fire({}), patience);
      this.offer(peer, {});
    }
    /** Offers do not overtake each other. */
    again(direction, restart) {
      const peer = this.peer;
      if (!peer || !this.settled) throw new GrtcError("INVALID_STATE_ERROR", "there is no established call");
      this.chain = this.chain.then(() => {
        if (this.peer !== peer) return;
        this.refused = false;
        for (const one of peer.getTransceivers()) one.direction = direction;
        this.offer(peer, { iceRestart: restart });
        return new Promise((resolve) => {
          const look = () => peer.signalingState === "have-local-offer" || resolve(void 0);
          peer.addEventListener("signalingstatechange", look);
          setTimeout(resolve, NO_ANSWER_LEAST_MS);
        });
      }).then(() => this.peer === peer && !this.refused && this.onSessionHold.fire(direction === "inactive"));
    }
    offer(peer, options) {
      void (async () => {
        await peer.setLocalDescription(await peer.createOffer(options));
        await gathered(peer, number(this.client.configuration.ice_timeout, SPEAK_MS));
        if (this.peer !== peer) return;
        this.seq++;
        const first = !this.settled && this.answerer === "";
        const data = Object.fromEntries(this.data.map(({ key, value }) => [/^x-/i.test(key) ? key : `X-${key}`, value]));
        const tieBreaker = crypto.getRandomValues(new Uint32Array(1))[0];
        const word = { ...this.word("OFFER"), tieBreaker, sdp: this.filtered(peer), ...first && this.data.length && { data } };
        await this.client.say(word, first ? this.remote : "");
      })().catch((error) => {
        if (this.peer !== peer) return;
        this.client.onWebrtcError.fire({ message: error.message });
        if (!this.settled) this.close();
      });
    }
    /** The offer with those candidates that the page lets pass. */
    filtered(peer) {
      const lines = (peer.localDescription?.sdp ?? "").split("\r\n");
      const own = lines.filter((line) => line.startsWith("a=candidate:")).map((line) => ({ candidate: line.slice(2) }));
      const kept = new Set(this.client.filterIceCandidates(own).map((one) => `a=${one.candidate}`));
      return lines.filter((line) => !line.startsWith("a=candidate:") || kept.has(line)).join("\r\n");
    }
    async answered(word) {
      const peer = this.peer;
      if (!peer || word["seq"] !== this.seq || peer.signalingState !== "have-local-offer") return;
      try {
        await peer.setRemoteDescription({ type: "answer", sdp: String(word["sdp"]) });
        clearTimeout(this.timer);
        this.answerer = String(word["answererSessionId"]);
        this.settled = true;
        this.send(this.word("OK"));
      } catch (error) {
        this.client.onWebrtcError.fire({ message: error.message });
      }
    }
    failed(word) {
      const peer = this.peer;
      this.client.onGatewayError.fire({ message: String(word["detail"] ?? ""), error: String(word["errorType"] ?? "") });
      if (this.settled) {
        this.refused = true;
        if (peer?.signalingState === "have-local-offer") void peer.setLocalDescription({ type: "rollback" });
        return;
      }
      const unanswered = word["errorType"] === "TIMEOUT";
      this.close();
      if (unanswered) this.client.onPeerNoanswer.fire({});
      else this.client.onPeerClosing.fire({});
    }
  };
  function figures(stats) {
    const side = (from) => {
      const one = stats?.media?.directions?.find((direction) => direction.from === from);
      return { packets: one?.packets ?? 0, bytes: one?.octets ?? 0, lost: one?.lost ?? 0, jitter: 0 };
    };
    const timestamp = Date.now();
    const audio = { rx: side("outside"), tx: side("inside"), rtt: 0, rtt_max: 0, rtt_average: 0 };
    return { timestamp, duration: timestamp - (stats?.created ?? timestamp), audio };
  }
  function told(word) {
    const [kind, body] = [String(word["contentType"] ?? ""), String(word["body"] ?? "")];
    if (/json/i.test(kind)) {
      try {
        const data = JSON.parse(body);
        if (data && typeof data === "object") return data;
      } catch {
      }
    }
    return /urlencoded/i.test(kind) ? deparam(body) : { contentType: kind, body };
  }
  async function detail(answer) {
    const body = await answer.json().catch(() => ({}));
    return body.detail ?? `the gateway answers ${answer.status}`;
  }
  function deparam(query) {
    return Object.fromEntries(new URLSearchParams(query));
  }
  function isWebrtcSupported() {
    return typeof RTCPeerConnection === "function" && Boolean(navigator.mediaDevices?.getUserMedia);
  }
  function getWebrtcDetectedBrowser() {
    const agent = navigator.userAgent;
    return /Firefox\//.test(agent) ? "firefox" : /Chrom(e|ium)\//.test(agent) ? "chrome" : /Safari\//.test(agent) ? "safari" : "other";
  }
  return __toCommonJS(grtc_exports);
})();
