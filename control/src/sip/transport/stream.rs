//! Messages over one stream: cut out of it, written to it, until either side ends.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::Instant;

use super::{Arrival, FIRST, IDLE, LAST_WORD, Target, WRITE_PATIENCE};
use crate::sip::framing::{Frame, frame};

/// How often a peer that we connected to is pinged (RFC 5626 section 4.4.1), and how long its answer may take.
const PING: Duration = Duration::from_secs(25);
const PONG: Duration = Duration::from_secs(10);

/// Reads messages and writes answers until either side ends. `pings`: whether we keep the connection alive. Not every
/// peer answers pings; one that did and does so no more is gone.
pub async fn follow(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Target,
    mut outbox: Receiver<Vec<u8>>,
    arrived: &Sender<Arrival>,
    pings: bool,
) {
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    let (mut answers, mut silent) = (false, None);
    let mut pending = Vec::new();
    let mut piece = [0; 8192];
    let mut patience = FIRST;
    loop {
        let goes_on = tokio::select! {
            octets = outbox.recv() => match octets {
                Some(octets) => {
                    // Ours, or an answer of ours: it is in use.
                    patience = IDLE;
                    write(&mut stream, &octets).await
                }
                None => false,
            },
            _ = ping.tick(), if pings => {
                silent = answers.then(|| Instant::now() + PONG);
                write(&mut stream, b"\r\n\r\n").await
            }
            () = tokio::time::sleep_until(silent.unwrap_or_else(Instant::now)), if silent.is_some() => {
                let reason = "pings are not answered any more".to_owned();
                let _ = arrived.send(Arrival::Unreachable(peer, reason)).await;
                false
            }
            read = tokio::time::timeout(patience, stream.read(&mut piece)) => match read {
                Ok(Ok(n)) if n > 0 => {
                    silent = None;
                    answers |= pings && pending.is_empty() && piece[..n] == *b"\r\n";
                    pending.extend_from_slice(&piece[..n]);
                    let goes_on = cut(&mut pending, &mut stream, peer, arrived).await;
                    // Half a message may not take long either.
                    patience = if pending.is_empty() { IDLE } else { FIRST };
                    goes_on
                }
                _ => false,
            },
        };
        if !goes_on {
            // The answer to what could not be followed is still to leave.
            while let Ok(Some(octets)) = tokio::time::timeout(LAST_WORD, outbox.recv()).await {
                if !write(&mut stream, &octets).await {
                    break;
                }
            }
            // Whoever looks up the connection now sees that it is closed.
            drop(outbox);
            let _ = arrived.send(Arrival::Gone(peer)).await;
            return;
        }
    }
}

/// Writes to a peer that is given some time to read; whether it did.
async fn write(stream: &mut (impl AsyncWrite + Unpin), octets: &[u8]) -> bool {
    let written = async {
        stream.write_all(octets).await?;
        stream.flush().await
    };
    matches!(tokio::time::timeout(WRITE_PATIENCE, written).await, Ok(Ok(())))
}

/// Takes whole messages off the front; whether the stream can be followed on.
async fn cut(
    pending: &mut Vec<u8>,
    stream: &mut (impl AsyncWrite + Unpin),
    source: Target,
    arrived: &Sender<Arrival>,
) -> bool {
    while !pending.is_empty() {
        match frame(pending) {
            Frame::Partial => return true,
            Frame::Blank { used, ping } => {
                pending.drain(..used.min(pending.len()));
                if ping && !write(stream, b"\r\n").await {
                    return false;
                }
            }
            Frame::Message(length) => {
                let octets = pending.drain(..length.min(pending.len())).collect();
                if arrived.send(Arrival::Message { octets, source }).await.is_err() {
                    return false;
                }
            }
            Frame::Broken(head) => {
                let octets: Vec<u8> = pending.drain(..head.unwrap_or(0).min(pending.len())).collect();
                if !octets.is_empty() {
                    let _ = arrived.send(Arrival::Message { octets, source }).await;
                }
                return false;
            }
        }
    }
    true
}
