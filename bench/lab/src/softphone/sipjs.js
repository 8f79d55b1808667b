// SIP.js, by its API for applications.
soft.register = async ({ url, uri, password, stun }) => {
  const user = uri.slice(4, uri.indexOf("@"));
  soft.host = uri.slice(uri.indexOf("@") + 1);
  const ua = new SIP.UserAgent({
    uri: SIP.UserAgent.makeURI(uri), transportOptions: { server: url }, logLevel: "warn",
    authorizationUsername: user, authorizationPassword: password,
    sessionDescriptionHandlerFactoryOptions: {
      iceGatheringTimeout: 1500, peerConnectionConfiguration: { iceServers: [{ urls: "stun:" + stun }] },
    },
    delegate: { onInvite: invitation => { soft.follow(invitation); soft.note("incoming", invitation.remoteIdentity.uri.user); } },
  });
  soft.ua = ua;
  await ua.start();
  soft.registerer = new SIP.Registerer(ua);
  await new Promise((resolve, reject) => {
    soft.registerer.stateChange.addListener(state => {
      if (state === SIP.RegistererState.Registered) resolve();
      if (state === SIP.RegistererState.Unregistered) soft.note("unregistered");
    });
    soft.registerer.register({ requestDelegate: { onReject: response => reject(new Error(`REGISTER ${response.message.statusCode}`)) } });
  });
  return "SIP.js " + SIP.version;
};

const media = { constraints: { audio: AUDIO, video: false } };

soft.follow = session => {
  soft.session = session;
  session.delegate = {
    onSessionDescriptionHandler: handler => soft.hook(handler.peerConnection),
    onBye: () => {},
  };
  session.stateChange.addListener(state => {
    if (state === SIP.SessionState.Established) soft.note("confirmed");
    if (state === SIP.SessionState.Terminated) soft.note("ended");
  });
};

soft.dial = async to => {
  const inviter = new SIP.Inviter(soft.ua, SIP.UserAgent.makeURI(to), { sessionDescriptionHandlerOptions: media });
  soft.follow(inviter);
  await inviter.invite({ requestDelegate: {
    onProgress: ({ message }) => soft.note("progress", message.statusCode),
    onReject: ({ message }) => soft.note("failed", `remote ${message.statusCode}`),
  } });
};

soft.answer = () => soft.session.accept({ sessionDescriptionHandlerOptions: media });

soft.hold = on => new Promise((resolve, reject) => {
  soft.session.sessionDescriptionHandlerOptionsReInvite = { hold: on };
  soft.session.invite({ requestDelegate: {
    onAccept: () => resolve(), onReject: ({ message }) => reject(new Error(`refused ${message.statusCode}`)),
  } }).catch(reject);
});

soft.digit = digit => new Promise((resolve, reject) => soft.session.info({
  requestOptions: { body: {
    contentDisposition: "render", contentType: "application/dtmf-relay", content: `Signal=${digit}\r\nDuration=160`,
  } },
  requestDelegate: { onAccept: () => resolve(), onReject: ({ message }) => reject(new Error(`refused ${message.statusCode}`)) },
}));

soft.refer = to => soft.session.refer(SIP.UserAgent.makeURI(to), {
  requestDelegate: {
    onAccept: () => soft.note("referring"), onReject: ({ message }) => soft.note("refer", `refused ${message.statusCode}`),
  },
  onNotify: notification => {
    notification.accept();
    soft.note("refer", Number(notification.request.body.split(" ")[1]));
  },
});

soft.bye = () => soft.session.bye();
soft.unregister = () => soft.registerer.unregister();
