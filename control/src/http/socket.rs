//! The JSON WebSocket: calls and events of browsers over one connection that may drop and come back (docs/browsers.md).

mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use sallyport_plan::CallId;
use sallyport_proto::{Input, Transfer};
use serde_json::Value;
use tokio::time::{Instant, interval_at, sleep_until, timeout};

use super::Shared;
use super::calls::{Call, call_problem, create_problem};
use super::checks::{check_destination, check_digits, check_info, data_headers};
use super::connection::{Local, Peer};
use super::guests::{Counts, Guest, Origin};
use super::outbox::{Next, Reader};
use super::problem::Problem;
use crate::message::{CallError, Handle, SessionId, Wish};
use words::{Said, SignInWords, Wants, error, reply, signed_in, told};

/// The sub-protocol.
const PROTOCOL: &str = "sallyport.v1";
/// Octets of a message.
const MESSAGE_MAX: usize = 64 * 1024;
/// How often a browser is pinged: more often than NATs and proxies forget.
const PING: Duration = Duration::from_secs(25);
/// A connection ends that says nothing for so long, not even that a ping came; before it is signed in, sooner.
const SILENCE: Duration = Duration::from_secs(60);
const FIRST: Duration = Duration::from_secs(10);
/// How long a message may take to be taken by the browser's end.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Between two messages of one connection that are obeyed.
const PACE: Duration = Duration::from_millis(5);
/// Messages that cannot be read, until the connection ends.
const BAD: u32 = 20;
/// Seconds until another attempt is worth while.
const RETRY_S: u32 = 10;
/// Codes of the close frame (RFC 6455 section 7.4.2).
const CLOSE_OVER: u16 = 4000;
const CLOSE_REPLACED: u16 = 4001;
const CLOSE_BAD: u16 = 4002;

/// The JSON WebSocket: sub-protocol `sallyport.v1`, messages as in docs/browsers.md.
#[utoipa::path(get, path = "/v1/socket", responses((status = 101, description = "The connection is a WebSocket"),
    (status = 403, description = "Not from pages of this origin", body = Problem, content_type = "application/problem+json"),
    (status = "4XX", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Too many connections", body = Problem, content_type = "application/problem+json")))]
pub async fn socket(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Extension(local): Extension<Local>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        return super::websocket::upgrade_required("this path is a WebSocket; see docs/browsers.md");
    };
    let upgrade = upgrade.protocols([PROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        let text = format!("the WebSocket sub-protocol must be \"{PROTOCOL}\"");
        return Problem::new(StatusCode::BAD_REQUEST, "subprotocol", text).into_response();
    }
    if !shared.access.may_connect(&headers) {
        let text = "pages of this origin may not connect; see [http] origins";
        return Problem::new(StatusCode::FORBIDDEN, "origin", text).into_response();
    }
    let client = shared.access.client(&headers, peer.0).group();
    let Some(place) = shared.places.enter(client) else {
        let text = "there are as many WebSocket connections as there may be";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "full", text).retry(RETRY_S).into_response();
    };
    let from = Origin { headers, peer, local };
    let visit = Visit { shared, from, seat: None, bad: 0 };
    upgrade.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX).on_upgrade(move |socket| async move {
        visit.follow(socket).await;
        drop(place);
    })
}

/// One connection.
struct Visit {
    shared: Shared,
    from: Origin,
    seat: Option<Seat>,
    bad: u32,
}

/// A browser that is signed in, as this connection reads for it.
struct Seat {
    guest: Arc<Guest>,
    reader: Reader,
}

async fn next(seat: &mut Option<Seat>) -> Next {
    match seat {
        Some(seat) => seat.guest.outbox.next(&mut seat.reader).await,
        None => std::future::pending().await,
    }
}

async fn write(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(WRITE_PATIENCE, socket.send(message)).await, Ok(Ok(())))
}

impl Visit {
    async fn follow(mut self, mut socket: WebSocket) {
        let code = self.converse(&mut socket).await;
        if let Some(seat) = &self.seat {
            seat.guest.outbox.leave(&seat.reader);
        }
        let frame = code.map(|code| CloseFrame { code, reason: "".into() });
        let _ = timeout(WRITE_PATIENCE, socket.send(Message::Close(frame))).await;
    }

    /// Until either side ends; with which code we do.
    async fn converse(&mut self, socket: &mut WebSocket) -> Option<u16> {
        let mut ping = interval_at(Instant::now() + PING, PING);
        let mut deadline = Instant::now() + FIRST;
        loop {
            tokio::select! {
                next = next(&mut self.seat) => match next {
                    Next::Message(_, text) => if !write(socket, Message::Text(text.into())).await {
                        return None;
                    },
                    Next::Replaced => return Some(CLOSE_REPLACED),
                    Next::Over => return Some(CLOSE_OVER),
                },
                _ = ping.tick() => if !write(socket, Message::Ping(Vec::new().into())).await {
                    return None;
                },
                () = sleep_until(deadline) => return None,
                message = socket.recv() => {
                    let answers = match message {
                        Some(Ok(Message::Text(text))) => self.take(&text).await,
                        Some(Ok(Message::Binary(_))) => self.take("").await,
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Vec::new(),
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    };
                    for answer in answers {
                        if !write(socket, Message::Text(answer.to_string().into())).await {
                            return None;
                        }
                    }
                    if self.bad >= BAD {
                        return Some(CLOSE_BAD);
                    }
                    if self.seat.is_some() {
                        deadline = Instant::now() + SILENCE;
                    }
                }
            }
        }
    }

    /// Obeys a message; what is to be said at once.
    async fn take(&mut self, text: &str) -> Vec<Value> {
        let Said { name, wants } = match Said::parse(text) {
            Ok(said) => said,
            Err(problem) => {
                self.bad += 1;
                Counts::add(&self.shared.counts.bad);
                return vec![error(&Value::Null, None, &problem)];
            }
        };
        Counts::add(&self.shared.counts.taken);
        tokio::time::sleep(PACE).await;
        match (wants, &self.seat) {
            (Wants::Ping, _) => vec![reply("pong", &name, None)],
            (Wants::SignIn(words), None) => match self.sign_in(&name, words).await {
                Ok(word) => vec![word],
                Err(problem) => vec![error(&name, None, &problem)],
            },
            (Wants::SignIn(_), Some(_)) => {
                let problem = Problem::new(StatusCode::CONFLICT, "signed_in", "this connection is signed in");
                vec![error(&name, None, &problem)]
            }
            (_, None) => {
                let text = "sign in first: as a customer without a number";
                vec![error(&name, None, &Problem::new(StatusCode::UNAUTHORIZED, "not_signed_in", text))]
            }
            (wants, Some(seat)) => {
                if name.is_null() || seat.guest.is_new(name.to_string()) {
                    let errand =
                        Errand { shared: &self.shared, guest: &seat.guest, from: &self.from, name: &name };
                    if let Err(problem) = errand.obey(wants).await {
                        seat.guest.tell(error(&name, None, &problem));
                    }
                }
                Vec::new()
            }
        }
    }

    async fn sign_in(&mut self, name: &Value, words: SignInWords) -> Result<Value, Problem> {
        let guests = &self.shared.sockets;
        let (guest, resumed, after) = match words.session {
            None => (guests.sign_in(&self.shared, &self.from, words.names, told).await?, false, 0),
            Some(session) => {
                let id: Option<SessionId> = session.parse().ok();
                (id.and_then(|id| guests.find(id)).ok_or_else(unknown_session)?, true, words.seq)
            }
        };
        let reader = guest.outbox.read_after(after).ok_or_else(unknown_session)?;
        if resumed {
            Counts::add(&self.shared.counts.resumed);
        }
        let word = signed_in(name, guest.id, guest.number.as_deref(), resumed);
        self.seat = Some(Seat { guest, reader });
        Ok(word)
    }
}

fn unknown_session() -> Problem {
    let text = "there is no such session, or too much has happened in it meanwhile; sign in anew";
    Problem::new(StatusCode::NOT_FOUND, "unknown_session", text)
}

/// One message of a browser that is signed in.
struct Errand<'a> {
    shared: &'a Shared,
    guest: &'a Arc<Guest>,
    from: &'a Origin,
    name: &'a Value,
}

impl Errand<'_> {
    async fn obey(&self, wants: Wants) -> Result<(), Problem> {
        let calls = &self.shared.calls;
        match wants {
            Wants::Call { to, sdp, data } => return self.call(to, sdp, data),
            Wants::Accept { call, sdp } => return self.accept(self.own(&call)?, sdp),
            Wants::Offer { call, sdp } => return self.offer(self.own(&call)?, sdp),
            Wants::Stats { call } => return self.stats(self.own(&call)?),
            Wants::Candidate { call, fragment } => calls.trickle(self.own(&call)?, fragment).await,
            Wants::Decline { call, status } => {
                let id = self.own(&call)?;
                if !(400..=699).contains(&status) {
                    let text = "status is a final one of SIP, 400 to 699";
                    return Err(Problem::new(StatusCode::BAD_REQUEST, "status", text));
                }
                self.guest.forget(id);
                calls.decline(id, self.guest.id, status).await
            }
            Wants::Hangup { call } => calls.hang_up(self.own(&call)?).await,
            Wants::Dtmf { call, digits, duration } => {
                check_digits(&digits, duration)?;
                calls.act(self.own(&call)?, Input::Dtmf { digits, duration }).await
            }
            Wants::Info { call, content_type, body } => {
                check_info(&content_type, &body)?;
                let body = body.into_bytes();
                calls.act(self.own(&call)?, Input::Info { content_type, body }).await
            }
            Wants::Claim { call } => self.claim(&call).await,
            Wants::Renew { token } => {
                let renewed = (self.guest.id, Some(token.as_str()));
                self.shared.renew(&self.from.headers, self.from.peer, renewed).await?;
                Ok(())
            }
            Wants::Transfer { call, to, onto } => return self.transfer(&call, to, onto).await,
            Wants::SignOut => {
                self.guest.leave("signed_out");
                return Ok(());
            }
            Wants::SignIn(_) | Wants::Ping => return Ok(()),
        }
        .map_err(call_problem)?;
        self.done();
        Ok(())
    }

    /// Says that it was done, where somebody asks.
    fn done(&self) {
        if !self.name.is_null() {
            self.guest.tell(reply("ok", self.name, None));
        }
    }

    fn own(&self, call: &str) -> Result<CallId, Problem> {
        let id = call.parse().ok().filter(|id| self.guest.has(*id));
        id.ok_or_else(|| call_problem(CallError::Unknown))
    }

    /// A call whose events it hears from now on.
    async fn claim(&self, call: &str) -> Result<(), CallError> {
        let id: CallId = call.parse().map_err(|_| CallError::Unknown)?;
        if self.guest.has(id) {
            return Ok(());
        }
        // Before anything that can be told of it.
        self.guest.enter(id).map_err(|_| CallError::NotYet)?;
        self.shared.calls.claim(id, self.guest.id).await.inspect_err(|_| self.guest.forget(id))
    }

    fn call(&self, to: String, offer: String, data: BTreeMap<String, String>) -> Result<(), Problem> {
        let caller = self.guest.caller();
        let headers = data_headers(data)?;
        let (id, calls, name, guest) =
            (Handle::name(), self.shared.calls.clone(), self.name.clone(), self.guest.clone());
        self.guest.enter(id)?;
        // Before anything that can be told of the call.
        self.guest.tell(reply("calling", self.name, Some(id)));
        let placed = self.guest.defer(async move {
            match calls.create_as(id, Wish { to, offer, caller, headers }).await {
                Ok(created) => answer(&name, id, created.answer),
                Err(problem) => {
                    guest.forget(id);
                    error(&name, Some(id), &create_problem(problem))
                }
            }
        });
        if placed.is_err() {
            self.guest.forget(id);
        }
        placed
    }

    fn accept(&self, id: CallId, offer: String) -> Result<(), Problem> {
        let (calls, name, caller) = (self.shared.calls.clone(), self.name.clone(), self.guest.caller());
        self.guest.defer(async move {
            match calls.accept(id, offer, caller).await {
                Ok(created) => answer(&name, id, created.answer),
                Err(problem) => error(&name, Some(id), &create_problem(problem)),
            }
        })
    }

    fn offer(&self, id: CallId, offer: String) -> Result<(), Problem> {
        let (calls, name) = (self.shared.calls.clone(), self.name.clone());
        self.guest.defer(async move {
            match calls.renegotiate(id, offer).await {
                Ok(sdp) => answer(&name, id, sdp),
                Err(problem) => error(&name, Some(id), &create_problem(problem)),
            }
        })
    }

    fn stats(&self, id: CallId) -> Result<(), Problem> {
        let (calls, name) = (self.shared.calls.clone(), self.name.clone());
        self.guest.defer(async move {
            match calls.show(id).await {
                Ok(shown) => {
                    let mut word = reply("stats", &name, Some(id));
                    word["stats"] =
                        serde_json::to_value(Call::new(&shown.view, &shown.directions)).unwrap_or_default();
                    word
                }
                Err(problem) => error(&name, Some(id), &call_problem(problem)),
            }
        })
    }

    async fn transfer(&self, call: &str, to: Option<String>, onto: Option<String>) -> Result<(), Problem> {
        let id = self.own(call)?;
        match (to, onto) {
            (Some(to), None) => {
                check_destination(&to)?;
                self.shared.calls.may_call(self.guest.id, to.clone()).await.map_err(create_problem)?;
                let input = Input::Transfer(Transfer::To(to));
                self.shared.calls.act(id, input).await.map_err(call_problem)?;
            }
            (None, Some(onto)) => {
                let other = self.own(&onto)?;
                self.shared.calls.transfer_onto(id, other).await.map_err(call_problem)?;
            }
            _ => {
                let text = "a transfer goes either to a number or onto a call";
                return Err(Problem::new(StatusCode::BAD_REQUEST, "transfer", text));
            }
        }
        self.done();
        Ok(())
    }
}

fn answer(name: &Value, id: CallId, sdp: String) -> Value {
    let mut word = reply("answer", name, Some(id));
    word["sdp"] = sdp.into();
    word
}
