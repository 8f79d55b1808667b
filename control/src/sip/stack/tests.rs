//! Transactions without a network.

use super::servers::OCTETS_MAX;
use super::*;
use crate::message::Source;
use crate::message::Visitor;
use crate::sip::server::Server;
use crate::sip::transport::tls::Tls;
use sallyport_plan::Zone;
use sallyport_proto::sip::Method;

#[test]
fn uris_with_addresses_are_targets() {
    let target = |uri| uri_target(uri).map(|target| (target.address.to_string(), target.kind));
    assert_eq!(target("sip:a@10.0.0.5"), Some(("10.0.0.5:5060".into(), Transport::Udp)));
    assert_eq!(target("sip:10.0.0.5:5070;transport=TCP;lr"), Some(("10.0.0.5:5070".into(), Transport::Tcp)));
    assert_eq!(target("sip:a@[2001:db8::1]:5061"), Some(("[2001:db8::1]:5061".into(), Transport::Udp)));
    assert_eq!(target("sip:a@[2001:db8::1]"), Some(("[2001:db8::1]:5060".into(), Transport::Udp)));
    assert_eq!(target("sips:a@10.0.0.5"), Some(("10.0.0.5:5061".into(), Transport::Tls)));
    assert_eq!(target("SIP:10.0.0.5;transport=tls"), Some(("10.0.0.5:5061".into(), Transport::Tls)));
    assert_eq!(target("sip:a@example.com"), None);
    assert_eq!(target("tel:+49"), None);
}

#[test]
fn via_says_where_a_request_came_from() {
    let source = "192.0.2.7:4000".parse().unwrap();
    let stamped = stamp("SIP/2.0/UDP 10.0.0.9:5060;rport;branch=z9hG4bKx;received=1.2.3.4", source);
    assert_eq!(stamped, "SIP/2.0/UDP 10.0.0.9:5060;rport=4000;branch=z9hG4bKx;received=192.0.2.7");
}

#[test]
fn an_ack_carries_the_answer_s_to() {
    let ack = with_to(b"ACK sip:a SIP/2.0\r\nTo: <sip:b>\r\n\r\n", "<sip:b>;tag=9");
    assert_eq!(ack, b"ACK sip:a SIP/2.0\r\nTo: <sip:b>;tag=9\r\n\r\n");
}

fn target() -> Target {
    Target::new("127.0.0.1:9".parse().unwrap(), Transport::Udp)
}

/// A stack on a port of the system's choice, with what it tells the calls.
async fn stack() -> (Stack, UnboundedReceiver<Message>) {
    stack_with(&["127.0.0.1:9"]).await
}

async fn stack_with(servers: &[&str]) -> (Stack, UnboundedReceiver<Message>) {
    let (arrived, _) = tokio::sync::mpsc::channel(8);
    let listen = "127.0.0.1:0".parse().unwrap();
    let tls = Tls::load(&crate::config::SipTls::default()).unwrap();
    let trusted = Trusted::default();
    let (transports, _) = Transports::bind(listen, (tls, None), trusted.clone(), arrived).await.unwrap();
    let (told, inbox) = tokio::sync::mpsc::unbounded_channel();
    // The socket is known to be writable once the runtime has looked.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let servers: Vec<_> = servers.iter().map(|text| crate::config::Server::parse(text).unwrap()).collect();
    let peers = Peers::new(&servers, Transport::Udp, None, Instant::now());
    let accept = vec!["127.0.0.2".parse().unwrap()];
    let rules = Rules { peers, accept, trusted };
    (Stack::new(transports, rules, Handle(told), watch::channel(View::default()).0), inbox)
}

fn message(method: &str, number: usize, to: &str, extra: &str) -> Vec<u8> {
    format!(
        "{method} sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{number}\r\nFrom: <sip:x@y>;tag=1\r\n\
         To: {to}\r\nCall-ID: {number}\r\nCSeq: 1 {method}\r\n{extra}Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

fn request(method: Method) -> Request {
    let Some(Incoming::Request(read, ..)) = codec::parse(&message("OPTIONS", 1, "<sip:a@b>", "")) else {
        panic!("no request")
    };
    Request { method, ..*read }
}

#[tokio::test]
async fn a_cancelled_invite_that_nobody_answers_is_forgotten_and_told() {
    let (mut stack, mut inbox) = stack().await;
    let (call, transaction) = (CallId(1), TransactionId(1));
    stack.obey(Todo::Request { call, transaction, request: request(Method::Invite), over: None });
    let now = Instant::now();
    stack.clients.by_number.values_mut().for_each(|client| client.provisional(now));
    stack.pass_time(now + Duration::from_secs(600));
    assert!(inbox.try_recv().is_err(), "it may ring as long as the call lets it");
    stack.obey(Todo::Cancel { call, invite: transaction, request: request(Method::Cancel) });
    assert_eq!(stack.clients.by_number.len(), 2);
    stack.pass_time(Instant::now() + Duration::from_secs(33));
    let told = inbox.try_recv();
    assert!(
        matches!(told, Ok(Message::Sip(SipEvent::Timeout { transaction: TransactionId(1), .. }))),
        "{told:?}"
    );
    assert!(stack.clients.is_empty(), "nothing is left of it");
}

#[tokio::test]
async fn strangers_take_so_much_memory_and_leave_room_for_our_server() {
    let (mut stack, mut inbox) = stack().await;
    let stranger = Target::new("127.0.0.2:9".parse().unwrap(), Transport::Udp);
    let large = format!("Record-Route: <sip:{}>\r\n", "x".repeat(12_000));
    for number in 0..3000 {
        stack.message(&message("INVITE", number, "<sip:a@b>", &large), stranger);
    }
    let cost = stack.servers.open.values().map(Server::cost).sum::<usize>();
    assert_eq!(stack.servers.held, cost, "the books are right");
    assert!(stack.servers.open.len() < 3000 && cost < OCTETS_MAX / 2 + 20_000, "{cost}");
    let before = stack.servers.open.len();
    stack.message(&message("BYE", 9999, "<sip:a@b>;tag=2", ""), target());
    assert_eq!(stack.servers.open.len(), before + 1);
    assert!(matches!(inbox.try_recv(), Ok(Message::Sip(SipEvent::Request { .. }))), "our server is heard");
    stack.pass_time(Instant::now() + Duration::from_secs(700));
    assert!(stack.servers.is_empty());
}

#[tokio::test]
async fn what_the_parser_refuses_is_answered_400() {
    let far = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let source = Target::new(far.local_addr().unwrap(), Transport::Udp);
    let (mut stack, _inbox) = stack().await;
    let sound = String::from_utf8(message("OPTIONS", 1, "<sip:a@b>", "")).unwrap();
    for uri in ["sip:@@", "sip:a@b:99999999", "sip:[::z]"] {
        let broken = sound.replacen("sip:a@b", uri, 1);
        stack.message(broken.as_bytes(), source);
        let mut room = [0; 1500];
        let read = tokio::time::timeout(Duration::from_secs(5), far.recv(&mut room)).await.unwrap().unwrap();
        assert!(room[..read].starts_with(b"SIP/2.0 400 "), "{uri}");
    }
    assert!(stack.servers.open.is_empty(), "nothing is remembered");
    let ack = sound.replacen("sip:a@b", "sip:@@", 1).replace("OPTIONS", "ACK");
    stack.message(ack.as_bytes(), source);
    let silent = tokio::time::timeout(Duration::from_millis(100), far.recv(&mut [0; 16])).await;
    assert!(silent.is_err(), "an ACK is never answered");
}

fn browser() -> Target {
    Target { address: "127.0.0.7:9".parse().unwrap(), kind: Transport::Ws, connection: Some(ConnectionId(3)) }
}

#[tokio::test]
async fn requests_go_over_a_browser_s_connection_and_end_with_it() {
    let (mut stack, mut inbox) = stack().await;
    let (writer, mut outbox) = tokio::sync::mpsc::channel(8);
    let client = "127.0.0.7".parse().unwrap();
    let visitor = Visitor { client, zone: Zone::Outside, token: None, password: String::new() };
    stack.arrive(Arrival::Entered(browser(), writer, visitor));
    assert!(matches!(
        inbox.try_recv(),
        Ok(Message::Sip(SipEvent::Opened { connection: ConnectionId(3), .. }))
    ));
    let (call, transaction) = (CallId(1), TransactionId(1));
    let over = Some(ConnectionId(3));
    stack.obey(Todo::Request { call, transaction, request: request(Method::Invite), over });
    let sent = String::from_utf8(outbox.try_recv().unwrap()).unwrap();
    assert!(sent.starts_with("INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/WS sallyport.invalid;"), "{sent}");
    stack.obey(Todo::Ack { request: request(Method::Ack), over });
    assert!(outbox.try_recv().unwrap().starts_with(b"ACK "));
    // A request of the browser that is not answered yet.
    stack.message(&message("REGISTER", 1, "<sip:a@b>", ""), browser());
    assert!(matches!(
        inbox.try_recv(),
        Ok(Message::Sip(SipEvent::Gateway { connection: ConnectionId(3), .. }))
    ));
    drop(outbox);
    stack.arrive(Arrival::Gone(browser()));
    assert!(matches!(
        inbox.try_recv(),
        Ok(Message::Sip(SipEvent::TransportError { transaction: TransactionId(1), .. }))
    ));
    assert!(matches!(inbox.try_recv(), Ok(Message::Sip(SipEvent::Gone { connection: ConnectionId(3) }))));
    assert!(stack.clients.is_empty() && stack.servers.is_empty());
    stack.obey(Todo::Request { call, transaction: TransactionId(2), request: request(Method::Bye), over });
    assert!(matches!(
        inbox.try_recv(),
        Ok(Message::Sip(SipEvent::TransportError { transaction: TransactionId(2), .. }))
    ));
}

#[tokio::test]
async fn a_cancel_finds_its_invite_while_that_is_unanswered() {
    let (mut stack, mut inbox) = stack().await;
    for (number, source) in [(15, target()), (25, browser())] {
        stack.message(&message("INVITE", number, "<sip:a@b>", ""), source);
        let told = inbox.try_recv();
        let invite = match told {
            Ok(Message::Sip(SipEvent::Request { source: Source::Sip, transaction, .. })) => transaction,
            Ok(Message::Sip(SipEvent::Gateway { transaction, .. })) => transaction,
            other => panic!("{other:?}"),
        };
        stack.message(&message("CANCEL", number, "<sip:a@b>", ""), source);
        let told = inbox.try_recv();
        assert!(
            matches!(told, Ok(Message::Sip(SipEvent::Cancelled { transaction, .. })) if transaction == invite)
        );
        // Again, and of nothing: the one is absorbed, the other answered by the stack.
        stack.message(&message("CANCEL", number, "<sip:a@b>", ""), source);
        stack.message(&message("CANCEL", number + 1, "<sip:a@b>", ""), source);
        assert!(inbox.try_recv().is_err());
    }
}

/// What the calls were told, without what it was about.
fn told(inbox: &mut UnboundedReceiver<Message>) -> String {
    let text = inbox.try_recv().map(|message| format!("{message:?}")).unwrap_or_default();
    text.split(['{', '(', ')']).nth(1).unwrap_or_default().trim().to_owned()
}

#[tokio::test]
async fn a_copy_by_another_way_is_a_loop_while_the_first_is_open() {
    let (mut stack, mut inbox) = stack().await;
    let invite = String::from_utf8(message("INVITE", 1, "<sip:a@b>", "")).unwrap();
    stack.message(invite.as_bytes(), target());
    assert_eq!(told(&mut inbox), "Request");
    let copy = invite.replace("z9hG4bK1", "z9hG4bKcopy");
    stack.message(copy.as_bytes(), target());
    assert_eq!(told(&mut inbox), "", "answered 482");
    assert_eq!(stack.refused.get("Loop Detected"), Some(&1));
    assert_eq!(stack.servers.open.len(), 1);
}

#[tokio::test]
async fn a_request_of_ours_that_comes_back_unchanged_is_a_loop() {
    let (mut stack, mut inbox) = stack().await;
    let (call, transaction) = (CallId(1), TransactionId(1));
    stack.obey(Todo::Request { call, transaction, request: request(Method::Invite), over: None });
    let sent = stack.clients.by_number.values().next().unwrap().octets.clone();
    let sent = String::from_utf8(sent).unwrap();
    let back = sent.replacen("\r\nVia: ", "\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKproxy\r\nVia: ", 1);
    stack.message(back.as_bytes(), target());
    assert_eq!((told(&mut inbox).as_str(), stack.refused.get("Loop Detected")), ("", Some(&1)));
    let elsewhere = back.replacen("sip:a@b", "sip:c@b", 1).replace("z9hG4bKproxy", "z9hG4bKother");
    stack.message(elsewhere.as_bytes(), target());
    assert_eq!(told(&mut inbox), "Request", "a spiral is no loop");
    // Both ends of a call may be ours: what the one says to the other within it comes by way of the server.
    let within = back.replacen("sip:a@b>", "sip:a@b>;tag=2", 2).replace("z9hG4bKproxy", "z9hG4bKthird");
    assert!(within.contains("\r\nTo: <sip:a@b>;tag=2\r\n"), "{within}");
    stack.message(within.as_bytes(), target());
    assert_eq!(told(&mut inbox), "Request");
}

#[tokio::test]
async fn one_branch_of_two_senders_is_two_transactions() {
    let (mut stack, mut inbox) = stack().await;
    let one = String::from_utf8(message("INVITE", 1, "<sip:a@b>", "")).unwrap();
    let other = one.replace("127.0.0.1:9;", "far.example;").replace("Call-ID: 1", "Call-ID: 2");
    for text in [&one, &other, &one] {
        stack.message(text.as_bytes(), target());
    }
    assert_eq!([told(&mut inbox), told(&mut inbox), told(&mut inbox)], ["Request", "Request", ""]);
}

#[tokio::test]
async fn strangers_begin_no_call_and_are_heard_within_one() {
    let (mut stack, mut inbox) = stack().await;
    let stranger = Target::new("127.0.0.3:9".parse().unwrap(), Transport::Udp);
    stack.message(&message("INVITE", 0, "<sip:a@b>", ""), stranger);
    assert_eq!(told(&mut inbox), "");
    assert_eq!(stack.refused.get("Forbidden"), Some(&1));
    assert!(stack.servers.is_empty(), "nothing is remembered of it");
    // Whether there is such a dialog is the calls' to say.
    for (number, method) in (1..).zip(["INVITE", "BYE", "ACK"]) {
        stack.message(&message(method, number, "<sip:a@b>;tag=2", ""), stranger);
        assert_eq!(told(&mut inbox), "Request", "{method}");
    }
    let accepted = Target::new("127.0.0.2:9".parse().unwrap(), Transport::Udp);
    stack.message(&message("INVITE", 9, "<sip:a@b>", ""), accepted);
    assert_eq!(told(&mut inbox), "Request", "[sip] accept names it");
}

fn answer(stack: &Stack, status: &str, extra: &str) -> Vec<u8> {
    let client = stack.clients.by_number.values().max_by_key(|client| client.sent).unwrap();
    let sent = String::from_utf8(client.octets.clone()).unwrap();
    let headers: Vec<&str> = sent
        .lines()
        .filter(|line| ["Via", "From", "To:", "Call", "CSeq"].iter().any(|name| line.starts_with(name)))
        .collect();
    format!("SIP/2.0 {status}\r\n{}\r\n{extra}Content-Length: 0\r\n\r\n", headers.join("\r\n")).into_bytes()
}

fn place(stack: &Stack) -> Vec<String> {
    let mut all: Vec<_> = stack.clients.by_number.values().filter(|client| !client.done).collect();
    all.sort_by_key(|client| client.sent);
    all.iter().map(|client| client.target.address.to_string()).collect()
}

#[tokio::test]
async fn an_invite_without_an_answer_moves_to_the_next_peer_within_two_seconds() {
    let (mut stack, mut inbox) = stack_with(&["127.0.0.1:9", "127.0.0.4:9"]).await;
    let (call, transaction) = (CallId(1), TransactionId(1));
    stack.obey(Todo::Request { call, transaction, request: request(Method::Invite), over: None });
    assert_eq!(place(&stack), ["127.0.0.1:9"]);
    let first = stack.clients.by_number.values().next().unwrap().branch.clone();
    stack.pass_time(Instant::now() + Duration::from_millis(1600));
    assert_eq!(place(&stack), ["127.0.0.4:9"]);
    assert_ne!(stack.clients.by_number.values().next().unwrap().branch, first, "RFC 3263 section 4.3");
    assert_eq!(told(&mut inbox), "", "the call hears nothing of it");
    // The next one goes to the living at once.
    stack.obey(Todo::Request {
        call,
        transaction: TransactionId(2),
        request: request(Method::Options),
        over: None,
    });
    assert_eq!(place(&stack), ["127.0.0.4:9", "127.0.0.4:9"]);
    stack.unreachable(next(), "ICMP");
    assert_eq!(told(&mut inbox), "TransportError", "nobody is left");
}

fn next() -> Target {
    Target::new("127.0.0.4:9".parse().unwrap(), Transport::Udp)
}

#[tokio::test]
async fn an_invite_that_rings_by_a_dead_peer_is_told_lost_once_another_lives() {
    let (mut stack, mut inbox) = stack_with(&["127.0.0.1:9", "127.0.0.4:9"]).await;
    let (call, transaction) = (CallId(1), TransactionId(1));
    stack.peers.lost(next(), "not there yet", Instant::now());
    stack.obey(Todo::Request { call, transaction, request: request(Method::Invite), over: None });
    stack.message(&answer(&stack, "180 Ringing", ""), target());
    assert_eq!(told(&mut inbox), "Response");
    stack.unreachable(target(), "ICMP");
    stack.pass_time(Instant::now() + Duration::from_secs(20));
    assert_eq!(told(&mut inbox), "PeersChanged");
    assert_eq!(place(&stack), ["127.0.0.1:9"], "nobody is there who could do better");
    stack.peers.heard(next(), Instant::now());
    stack.pass_time(Instant::now() + Duration::from_secs(21));
    let heard = [told(&mut inbox), told(&mut inbox)];
    assert_eq!(heard, ["TransportError", "PeersChanged"], "placed anew by the call, not sent on as it was");
    assert!(stack.clients.is_empty());
    // One that comes back in time keeps what rings by way of it.
    stack.peers.heard(target(), Instant::now());
    stack.obey(Todo::Request { call, transaction, request: request(Method::Invite), over: None });
    stack.message(&answer(&stack, "180 Ringing", ""), target());
    stack.doubt(target(), Instant::now());
    stack.pass_time(Instant::now() + Duration::from_secs(20));
    assert_eq!([told(&mut inbox), told(&mut inbox), told(&mut inbox)], ["Response", "PeersChanged", ""]);
    assert_eq!(place(&stack), ["127.0.0.1:9"]);
}

#[tokio::test]
async fn a_request_of_a_dialog_goes_by_another_peer_and_its_route_says_so() {
    let (mut stack, mut inbox) = stack_with(&["127.0.0.1:9", "127.0.0.4:9"]).await;
    let (call, transaction) = (CallId(1), TransactionId(1));
    let mut bye = request(Method::Bye);
    bye.to = "<sip:a@b>;tag=2".into();
    bye.uri = "sip:agent@127.0.0.9:5060".into();
    bye.route = ["<sip:127.0.0.1:9;r2=on;lr;ftag=1>", "<sip:127.0.0.8;lr>"].map(str::to_owned).into();
    stack.obey(Todo::Request { call, transaction, request: bye.clone(), over: None });
    let sent = |stack: &Stack| {
        let client = stack.clients.by_number.values().max_by_key(|client| client.sent).unwrap();
        let text = String::from_utf8(client.octets.clone()).unwrap();
        text.lines().filter_map(|line| line.strip_prefix("Route: ")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(sent(&stack), "<sip:127.0.0.1:9;r2=on;lr;ftag=1> <sip:127.0.0.8;lr>", "as the dialog has it");
    stack.unreachable(target(), "ICMP");
    assert_eq!(place(&stack), ["127.0.0.4:9"]);
    assert_eq!(sent(&stack), "<sip:127.0.0.4:9;ftag=1;lr> <sip:127.0.0.8;lr>");
    // The next one at once; whatever one server has recorded, the other records once.
    bye.route.insert(0, "<sip:127.0.0.1:9;r2=on;lr>".into());
    stack.obey(Todo::Request { call, transaction: TransactionId(2), request: bye, over: None });
    assert_eq!(place(&stack), ["127.0.0.4:9", "127.0.0.4:9"]);
    assert_eq!(sent(&stack), "<sip:127.0.0.4:9;lr> <sip:127.0.0.8;lr>");
    // Nobody is left: it waits for somebody as long as a transaction may.
    stack.unreachable(next(), "ICMP");
    assert_eq!(told(&mut inbox), "");
    stack.pass_time(Instant::now() + Duration::from_secs(20));
    assert_eq!((told(&mut inbox).as_str(), stack.clients.by_number.len()), ("", 2));
    stack.pass_time(Instant::now() + Duration::from_secs(33));
    assert_eq!([told(&mut inbox), told(&mut inbox)], ["Timeout", "Timeout"]);
}

#[tokio::test]
async fn who_is_overloaded_is_left_alone_for_as_long_as_it_says() {
    let (mut stack, mut inbox) = stack_with(&["127.0.0.1:9", "127.0.0.4:9"]).await;
    let (call, transaction) = (CallId(1), TransactionId(1));
    stack.obey(Todo::Request { call, transaction, request: request(Method::Invite), over: None });
    let refusal = answer(&stack, "503 Service Unavailable", "Retry-After: 20 (soon)\r\n");
    stack.message(&refusal, target());
    assert_eq!(place(&stack), ["127.0.0.4:9"]);
    assert_eq!(told(&mut inbox), "");
    let states = stack.peers.states(Instant::now());
    assert_eq!((states[0].alive, states[1].alive), (Some(false), None));
    assert_eq!(stack.peers.states(Instant::now() + Duration::from_secs(21))[0].alive, Some(true));
    // The last one's refusal is the call's.
    stack.message(&answer(&stack, "503 Service Unavailable", ""), target());
    assert_eq!(told(&mut inbox), "Response");
}

#[tokio::test]
async fn nothing_is_left_of_ten_thousand_and_a_tick_touches_none_of_them() {
    let (mut stack, _inbox) = stack().await;
    for number in 0..2_000 {
        let (call, transaction) = (CallId(1), TransactionId(number));
        stack.obey(Todo::Request { call, transaction, request: request(Method::Bye), over: None });
    }
    for number in 0..4_900 {
        stack.message(&message("BYE", number, "<sip:a@b>;tag=2", ""), target());
    }
    let all = stack.timers.len();
    assert!(all >= 6_900, "each has a deadline: {all}");
    stack.pass_time(Instant::now());
    assert!(stack.timers.len() - all <= 1, "none was due, none was looked at");
    // As an owner would: every deadline in its order.
    let begun = Instant::now();
    for second in 1..70 {
        stack.pass_time(begun + Duration::from_secs(second));
    }
    assert!(stack.clients.is_empty() && stack.servers.is_empty());
    assert!(stack.timers.len() < 10, "{} deadlines are left", stack.timers.len());
}
