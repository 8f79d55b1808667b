//! The called side: a SIP user agent that answers every INVITE at once and takes note of when it heard and answered.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::load::net::AGENT;

/// Moments of one call, ns since the run's begin; 0: not yet.
#[derive(Debug, Default)]
pub struct Moments {
    /// The first INVITE was heard.
    pub invited: AtomicU64,
    /// It was answered.
    pub accepted: AtomicU64,
    /// The BYE was heard.
    pub ended: AtomicU64,
}

/// All calls by number.
pub type Book = Arc<Vec<Moments>>;

/// Hears and answers until `stop`; how many requests came again, because an answer was late or lost.
pub fn serve(socket: &UdpSocket, book: &Book, begin: Instant, stop: &AtomicBool) -> u64 {
    let mut room = vec![0; 65_536];
    let mut again = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut room) else { continue };
        let text = String::from_utf8_lossy(room.get(..length).unwrap_or_default());
        let now = since(begin);
        let Some(moments) = number(&text).and_then(|number| book.get(number)) else { continue };
        let invite = text.starts_with("INVITE ");
        let heard = if invite { &moments.invited } else { &moments.ended };
        if text.starts_with("ACK ") || !(invite || text.starts_with("BYE ")) {
            continue;
        }
        if heard.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            again += 1;
        }
        let Some(answer) = answer(&text, invite, number(&text).unwrap_or_default()) else { continue };
        if invite {
            let _ = moments.accepted.compare_exchange(0, since(begin), Ordering::Relaxed, Ordering::Relaxed);
        }
        let _ = socket.send_to(answer.as_bytes(), from);
    }
    again
}

/// Nanoseconds since the run's begin, at least 1.
pub fn since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// The call's number: the user part of the Request-URI or of To is `cNUMBER`.
fn number(text: &str) -> Option<usize> {
    let to = text.lines().find(|line| line.starts_with("To:"))?;
    let (_, rest) = to.split_once("sip:c")?;
    rest.split('@').next()?.parse().ok()
}

fn answer(request: &str, invite: bool, number: usize) -> Option<String> {
    let head = request.split("\r\n\r\n").next()?;
    let kept = ["Via:", "From:", "Call-ID:", "CSeq:", "Record-Route:"];
    let kept = head.lines().filter(|line| kept.iter().any(|name| line.starts_with(name)));
    let copied: String = kept.map(|line| format!("{line}\r\n")).collect();
    let to = head.lines().find(|line| line.starts_with("To:"))?;
    let to = if to.contains("tag=") { to.to_owned() } else { format!("{to};tag=phone{number}") };
    // Ports of their own, so that no two calls at once share a flow.
    let port = 20_000 + 2 * (number % 20_000);
    let body = if invite {
        format!(
            "v=0\r\no=phone 1 1 IN IP4 {AGENT}\r\ns=-\r\nc=IN IP4 {AGENT}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n"
        )
    } else {
        String::new()
    };
    let kind = if invite { "Content-Type: application/sdp\r\n" } else { "" };
    Some(format!(
        "SIP/2.0 200 OK\r\n{copied}{to}\r\nContact: <sip:c{number}@{AGENT}:5060>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_its_number_and_answered_with_a_port_of_its_own() {
        let invite = "INVITE sip:c17@h SIP/2.0\r\nVia: v\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:c17@h>\r\nCall-ID: x\r\n\
                      CSeq: 1 INVITE\r\n\r\n";
        assert_eq!(number(invite), Some(17));
        let answer = answer(invite, true, 17).unwrap();
        assert!(
            answer.contains("m=audio 20034 ") && answer.contains("To: <sip:c17@h>;tag=phone17\r\n"),
            "{answer}"
        );
        assert!(answer.contains("Via: v\r\n") && answer.contains("CSeq: 1 INVITE\r\n"));
        assert_eq!(number("OPTIONS sip:x SIP/2.0\r\nTo: <sip:x@y>\r\n\r\n"), None);
    }
}
