//! A phone inside that plays a [`Score`]: it is called, answers at once, begins when it hears somebody, and holds and moves by
//! re-INVITE as the score has it.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::namespace::Namespace;
use crate::trouble::{FRAME, Mouth, RATE, Score, Voice, play};

/// How long an answer to a re-INVITE may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// RFC 3261's T1.
const T1: Duration = Duration::from_millis(500);
/// How long a socket is waited for at once.
const GLANCE: Duration = Duration::from_millis(100);

/// A phone to be.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where its SIP is, UDP.
    pub sip: SocketAddr,
    /// Where its media is; from one to the next by each transfer, and round.
    pub media: Vec<SocketAddr>,
    /// Where somebody else sends from.
    pub intruder: SocketAddr,
    /// What it plays.
    pub voice: Voice,
}

/// One that runs. It ends when it is dropped.
#[derive(Debug)]
pub struct Phone {
    score: Arc<Score>,
    line: Arc<Line>,
    threads: Vec<JoinHandle<()>>,
}

impl Phone {
    /// Starts one.
    ///
    /// # Errors
    /// What the system says of its addresses.
    pub fn start(namespace: &Namespace, setup: Setup, score: Arc<Score>) -> anyhow::Result<Self> {
        let bind = |at: &SocketAddr| UdpSocket::bind(at).with_context(|| at.to_string());
        let (sip, media, stray) = namespace.within(|| -> anyhow::Result<_> {
            let media: anyhow::Result<Vec<_>> = setup.media.iter().map(bind).collect();
            Ok((bind(&setup.sip)?, media?, bind(&setup.intruder)?))
        })??;
        sip.set_read_timeout(Some(GLANCE))?;
        for socket in &media {
            socket.set_nonblocking(true)?;
        }
        let line = Arc::new(Line {
            socket: sip,
            at: setup.sip,
            dialog: Mutex::new(Dialog { media: setup.media[0], direction: "sendrecv", ..Dialog::default() }),
            stop: AtomicBool::new(false),
            fault: Mutex::default(),
        });
        let (sender, answers) = channel();
        let serving = line.clone();
        let serves = thread::spawn(move || serving.serve(&sender));
        let mut handset =
            Handset { line: line.clone(), answers, media, at: 0, stray, addresses: setup.media };
        let (mut voice, playing) = (setup.voice, score.clone());
        let plays = thread::spawn(move || {
            if let Err(error) = handset.run(&mut voice, &playing) {
                handset.line.fail(&error);
            }
        });
        Ok(Self { score, line, threads: vec![serves, plays] })
    }

    /// What it plays, and how far it is.
    pub fn score(&self) -> &Score {
        &self.score
    }

    /// What it met that ended it early.
    pub fn fault(&self) -> Option<String> {
        self.line.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.line.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Its side of the dialog.
#[derive(Debug)]
struct Dialog {
    call_id: String,
    /// From and To of its own requests.
    from: String,
    to: String,
    target: String,
    next_hop: Option<SocketAddr>,
    cseq: u32,
    version: u32,
    media: SocketAddr,
    direction: &'static str,
    /// Where the far end wants media.
    far: Option<SocketAddr>,
}

impl Default for Dialog {
    fn default() -> Self {
        let nowhere = SocketAddr::from(([0; 4], 0));
        let (call_id, from, to, target) = <(String, String, String, String)>::default();
        let (cseq, version, direction) = (0, 0, "");
        Self {
            call_id,
            from,
            to,
            target,
            next_hop: None,
            cseq,
            version,
            media: nowhere,
            direction,
            far: None,
        }
    }
}

impl Dialog {
    fn body(&mut self) -> String {
        self.version += 1;
        let (ip, port, version) = (self.media.ip(), self.media.port(), self.version);
        let (family, direction) = (if ip.is_ipv4() { "IP4" } else { "IP6" }, self.direction);
        format!(
            "v=0\r\no=phone 7 {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:{}\r\na={direction}\r\n",
            FRAME * 1000 / RATE
        )
    }
}

#[derive(Debug)]
struct Line {
    socket: UdpSocket,
    at: SocketAddr,
    dialog: Mutex<Dialog>,
    stop: AtomicBool,
    fault: Mutex<Option<String>>,
}

impl Line {
    fn dialog(&self) -> MutexGuard<'_, Dialog> {
        self.dialog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, error: &anyhow::Error) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
    }

    /// Answers what is asked, and hands answers on.
    fn serve(&self, answers: &Sender<String>) {
        let mut room = vec![0; 65_536];
        while !self.ended() {
            let Ok((length, from)) = self.socket.recv_from(&mut room) else { continue };
            let text = String::from_utf8_lossy(&room[..length]).into_owned();
            if text.starts_with("SIP/2.0 ") {
                let _ = answers.send(text);
            } else if !text.starts_with("ACK ")
                && let Some(answer) = self.answer(&text, from)
            {
                let _ = self.socket.send_to(answer.as_bytes(), from);
            }
        }
    }

    fn answer(&self, request: &str, from: SocketAddr) -> Option<String> {
        let head = request.split("\r\n\r\n").next()?;
        let kept = ["Via", "From", "Call-ID", "CSeq", "Record-Route"];
        let kept: String = head
            .lines()
            .filter(|line| {
                line.split_once(':')
                    .is_some_and(|(name, _)| kept.iter().any(|kept| kept.eq_ignore_ascii_case(name.trim())))
            })
            .map(|line| format!("{line}\r\n"))
            .collect();
        let to = header(head, "To")?;
        let to = if to.contains(";tag=") { to.to_owned() } else { format!("{to};tag=phone") };
        let invite = request.starts_with("INVITE ");
        let mut dialog = self.dialog();
        if invite {
            dialog.call_id = header(head, "Call-ID")?.into();
            (dialog.from, dialog.to) = (to.clone(), header(head, "From")?.into());
            let contact = header(head, "Contact")?;
            dialog.target = contact
                .split_once('<')
                .and_then(|(_, rest)| rest.split('>').next())
                .unwrap_or(contact)
                .into();
            dialog.next_hop = Some(from);
            dialog.far = media_of(request).or(dialog.far);
        }
        let body = if invite { dialog.body() } else { String::new() };
        let kind = if invite { "Content-Type: application/sdp\r\n" } else { "" };
        Some(format!(
            "SIP/2.0 200 OK\r\n{kept}To: {to}\r\nContact: <sip:phone@{}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            self.at,
            body.len()
        ))
    }

    /// Offers anew where media is and which way it goes.
    fn offer(
        &self,
        answers: &Receiver<String>,
        media: SocketAddr,
        direction: &'static str,
    ) -> anyhow::Result<()> {
        while answers.try_recv().is_ok() {}
        let (request, ack, hop, cseq) = {
            let mut dialog = self.dialog();
            (dialog.media, dialog.direction) = (media, direction);
            dialog.cseq += 1;
            let (cseq, body) = (dialog.cseq, dialog.body());
            let head = |method: &str| {
                let Dialog { target, from, to, call_id, .. } = &*dialog;
                let at = self.at;
                format!(
                    "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bKphone{cseq}{method}\r\n\
                     Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
                     Contact: <sip:phone@{at}>\r\n"
                )
            };
            let request = format!(
                "{}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
                head("INVITE"),
                body.len()
            );
            let ack = format!("{}Content-Length: 0\r\n\r\n", head("ACK"));
            (request, ack, dialog.next_hop.context("nobody has called")?, format!("{cseq} INVITE"))
        };
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && !self.ended() {
            self.socket.send_to(request.as_bytes(), hop)?;
            let again = Instant::now() + T1;
            while let Ok(answer) = answers.recv_timeout(again.saturating_duration_since(Instant::now())) {
                let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
                if header(&answer, "CSeq") != Some(&cseq) || status.starts_with('1') {
                    continue;
                }
                self.socket.send_to(ack.as_bytes(), hop)?;
                if status != "200" {
                    bail!("a re-INVITE is answered {status}");
                }
                let mut dialog = self.dialog();
                dialog.far = media_of(&answer).or(dialog.far);
                return Ok(());
            }
        }
        bail!("a re-INVITE is not answered")
    }
}

/// Its media.
struct Handset {
    line: Arc<Line>,
    answers: Receiver<String>,
    media: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
    at: usize,
    stray: UdpSocket,
}

impl Handset {
    fn run(&mut self, voice: &mut Voice, score: &Score) -> anyhow::Result<()> {
        let mut room = [0; 2048];
        while !self.line.ended() {
            match self.media[0].recv(&mut room) {
                // RTP, and no RTCP: the far side has keys.
                Ok(length) if length >= 12 && !(192..=223).contains(&room[1]) => {
                    return play(self, voice, score);
                }
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(())
    }

    fn far(&self) -> anyhow::Result<SocketAddr> {
        self.line.dialog().far.context("the far end has named no media")
    }

    /// Its place in `addresses`: a hold keeps it, a transfer takes the next.
    fn offer(&self, direction: &'static str) -> anyhow::Result<()> {
        self.line.offer(&self.answers, self.addresses[self.at], direction)
    }
}

impl Mouth for Handset {
    fn say(&mut self, packet: &[u8]) -> anyhow::Result<()> {
        self.media[self.at].send_to(packet, self.far()?)?;
        Ok(())
    }

    fn intrude(&mut self, packet: &[u8]) -> anyhow::Result<()> {
        self.stray.send_to(packet, self.far()?)?;
        Ok(())
    }

    fn hold(&mut self, held: bool) -> anyhow::Result<()> {
        self.offer(if held { "inactive" } else { "sendrecv" })
    }

    fn transfer(&mut self) -> anyhow::Result<()> {
        self.at = (self.at + 1) % self.media.len();
        self.offer("sendrecv")
    }

    fn listen(&mut self, until: Instant) -> anyhow::Result<()> {
        let mut room = [0; 2048];
        if self.line.ended() {
            bail!("ended before all was played");
        }
        for socket in &self.media {
            while socket.recv(&mut room).is_ok() {}
        }
        // A timeout of a socket is as coarse as the system's ticks.
        thread::sleep(until.saturating_duration_since(Instant::now()));
        Ok(())
    }
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let split = head.lines().filter_map(|line| line.split_once(':'));
    split.filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
}

/// Where the first medium of a description is.
fn media_of(message: &str) -> Option<SocketAddr> {
    let (_, body) = message.split_once("\r\n\r\n")?;
    let value = |start: &str| body.lines().find_map(|line| line.strip_prefix(start));
    let ip: IpAddr =
        value("c=IN IP4 ").or_else(|| value("c=IN IP6 ")).and_then(|ip| ip.trim().parse().ok())?;
    let port: u16 = value("m=audio ")?.split(' ').next()?.parse().ok()?;
    (port != 0).then(|| SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_where_media_is_and_what_headers_say() {
        let text = "INVITE sip:x@y SIP/2.0\r\nCall-ID: a\r\ncseq: 7 INVITE\r\n\r\nv=0\r\nc=IN IP4 10.0.0.1\r\n\
                    m=audio 20000 RTP/AVP 0\r\n";
        assert_eq!(media_of(text), Some("10.0.0.1:20000".parse().unwrap()));
        assert_eq!(header(text, "CSeq"), Some("7 INVITE"));
        assert_eq!(media_of("SIP/2.0 200 OK\r\n\r\n"), None);
    }
}
