// JsSIP, as its own examples use it.
soft.register = ({ url, uri, password, stun }) => new Promise((resolve, reject) => {
  soft.pcConfig = { iceServers: [{ urls: "stun:" + stun }] };
  const ua = new JsSIP.UA({ sockets: [new JsSIP.WebSocketInterface(url)], uri, password, register: true });
  soft.ua = ua;
  ua.on("registered", () => resolve(JsSIP.name + " " + JsSIP.version));
  ua.on("registrationFailed", ({ cause, response }) => reject(new Error(`${cause} ${response && response.status_code}`)));
  ua.on("unregistered", () => soft.note("unregistered"));
  ua.on("newRTCSession", ({ originator, session }) => {
    soft.session = session;
    session.on("peerconnection", ({ peerconnection }) => soft.hook(peerconnection));
    session.on("progress", ({ response }) => soft.note("progress", response ? response.status_code : null));
    session.on("accepted", () => soft.note("accepted"));
    session.on("confirmed", () => soft.note("confirmed"));
    session.on("ended", ({ originator, cause }) => soft.note("ended", `${originator} ${cause}`));
    session.on("failed", ({ originator, cause }) => soft.note("failed", `${originator} ${cause}`));
    // A server's view of us is all that is needed.
    session.on("icecandidate", ({ candidate, ready }) => candidate.type === "srflx" && ready());
    if (originator === "remote") soft.note("incoming", session.remote_identity.uri.user);
  });
  ua.start();
});

soft.dial = async to => {
  const session = soft.ua.call(to, {
    mediaConstraints: { audio: AUDIO, video: false }, pcConfig: soft.pcConfig,
    eventHandlers: { peerconnection: ({ peerconnection }) => soft.hook(peerconnection) },
  });
  if (session.connection) soft.hook(session.connection);
};

soft.answer = async () => {
  soft.session.answer({ mediaConstraints: { audio: AUDIO, video: false }, pcConfig: soft.pcConfig });
  if (soft.session.connection) soft.hook(soft.session.connection);
};

soft.hold = on => new Promise((resolve, reject) => {
  const options = { eventHandlers: { failed: ({ response }) => reject(new Error(`refused ${response && response.status_code}`)) } };
  if (!(on ? soft.session.hold(options, () => resolve()) : soft.session.unhold(options, () => resolve()))) reject(new Error("not ready"));
});

soft.digit = digit => new Promise((resolve, reject) => {
  soft.session.once("newDTMF", ({ dtmf }) => {
    dtmf.on("succeeded", () => resolve());
    dtmf.on("failed", () => reject(new Error("refused")));
  });
  soft.session.sendDTMF(digit, { transportType: "INFO" });
});

soft.refer = async to => {
  const told = name => ({ request, status_line, cause }) =>
    soft.note("refer", status_line ? status_line.status_code : `${name} ${cause || "" }`);
  soft.session.refer(to, { eventHandlers: {
    requestSucceeded: () => soft.note("referring"), requestFailed: told("requestFailed"),
    trying: told("trying"), progress: told("progress"), accepted: told("accepted"), failed: told("failed"),
  } });
};

soft.bye = () => { soft.session.terminate(); };
soft.unregister = () => { soft.ua.unregister(); };
