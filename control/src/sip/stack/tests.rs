//! Transactions without a network.

use super::*;
use crate::message::Visitor;
use sallyport_plan::Zone;

#[test]
fn uris_with_addresses_are_targets() {
    let target = |uri| uri_target(uri).map(|target| (target.address.to_string(), target.kind));
    assert_eq!(target("sip:a@10.0.0.5"), Some(("10.0.0.5:5060".into(), Transport::Udp)));
    assert_eq!(target("sip:10.0.0.5:5070;transport=TCP;lr"), Some(("10.0.0.5:5070".into(), Transport::Tcp)));
    assert_eq!(target("sip:a@[2001:db8::1]:5061"), Some(("[2001:db8::1]:5061".into(), Transport::Udp)));
    assert_eq!(target("sip:a@[2001:db8::1]"), Some(("[2001:db8::1]:5060".into(), Transport::Udp)));
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
    let (arrived, _) = tokio::sync::mpsc::channel(8);
    let listen = "127.0.0.1:0".parse().unwrap();
    let (transports, _) = Transports::bind(listen, None, arrived).await.unwrap();
    let (told, inbox) = tokio::sync::mpsc::unbounded_channel();
    // The socket is known to be writable once the runtime has looked.
    tokio::time::sleep(Duration::from_millis(20)).await;
    (Stack::new(transports, Some(target()), Handle(told)), inbox)
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
    stack.clients.values_mut().for_each(|client| client.provisional(now));
    stack.pass_time(now + Duration::from_secs(600));
    assert!(inbox.try_recv().is_err(), "it may ring as long as the call lets it");
    stack.obey(Todo::Cancel { call, invite: transaction, request: request(Method::Cancel) });
    assert_eq!(stack.clients.len(), 2);
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
    let cost = stack.open.values().map(Server::cost).sum::<usize>();
    assert_eq!(stack.held, cost, "the books are right");
    assert!(stack.open.len() < 3000 && cost < OCTETS_MAX / 2 + 20_000, "{cost}");
    let before = stack.open.len();
    stack.message(&message("BYE", 9999, "<sip:a@b>;tag=2", ""), target());
    assert_eq!(stack.open.len(), before + 1);
    assert!(matches!(inbox.try_recv(), Ok(Message::Sip(SipEvent::Request { .. }))), "our server is heard");
    stack.pass_time(Instant::now() + Duration::from_secs(700));
    assert_eq!((stack.open.len(), stack.servers.len(), stack.held), (0, 0, 0));
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
    assert!(stack.open.is_empty(), "nothing is remembered");
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
    assert!(stack.clients.is_empty() && stack.open.is_empty() && stack.servers.is_empty() && stack.held == 0);
    stack.obey(Todo::Request { call, transaction: TransactionId(2), request: request(Method::Bye), over });
    assert!(matches!(
        inbox.try_recv(),
        Ok(Message::Sip(SipEvent::TransportError { transaction: TransactionId(2), .. }))
    ));
}

#[tokio::test]
async fn a_cancel_finds_its_invite_while_that_is_unanswered() {
    let (mut stack, mut inbox) = stack().await;
    for source in [target(), browser()] {
        stack.message(&message("INVITE", 5, "<sip:a@b>", ""), source);
        let told = inbox.try_recv();
        let invite = match told {
            Ok(Message::Sip(SipEvent::Request { source: Source::Sip, transaction, .. })) => transaction,
            Ok(Message::Sip(SipEvent::Gateway { transaction, .. })) => transaction,
            other => panic!("{other:?}"),
        };
        stack.message(&message("CANCEL", 5, "<sip:a@b>", ""), source);
        let told = inbox.try_recv();
        assert!(
            matches!(told, Ok(Message::Sip(SipEvent::Cancelled { transaction, .. })) if transaction == invite)
        );
        // Again, and of nothing: the one is absorbed, the other answered by the stack.
        stack.message(&message("CANCEL", 5, "<sip:a@b>", ""), source);
        stack.message(&message("CANCEL", 6, "<sip:a@b>", ""), source);
        assert!(inbox.try_recv().is_err());
    }
}
