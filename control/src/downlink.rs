//! The connection to the relay: commands out, events in; comes back by itself.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use sallyport_plan::{Command, Event, decode, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::message::{Handle, Message};

/// Pause between attempts to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Contract(#[from] sallyport_plan::DecodeError),
    #[error("the relay speaks version {0} of the contract, we speak {ours}", ours = sallyport_plan::VERSION)]
    Version(u16),
    #[error("the relay closed the connection")]
    Closed,
}

/// Keeps a connection to the relay at `socket` and hands its events to the owner of the calls; gives the way in and the
/// task. Commands sent while it is away are lost: the owner is told, and lists what runs when it is back.
pub fn link(
    socket: PathBuf,
    calls: Handle,
) -> (UnboundedSender<Command>, impl Future<Output = ()> + Send + 'static) {
    let (commands, mut outbox) = unbounded_channel();
    let task = async move {
        let mut complained = false;
        loop {
            match UnixStream::connect(&socket).await {
                Ok(stream) => {
                    complained = false;
                    while outbox.try_recv().is_ok() {}
                    let Err(error) = follow(stream, &mut outbox, &calls).await;
                    tracing::warn!(%error, "the relay is away");
                    if !calls.tell(Message::RelayDown) {
                        return;
                    }
                }
                Err(error) if !complained => {
                    complained = true;
                    tracing::warn!(%error, "no relay at its socket; trying on");
                }
                Err(_) => {}
            }
            if calls.0.is_closed() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    (commands, task)
}

async fn follow(
    mut stream: UnixStream,
    outbox: &mut UnboundedReceiver<Command>,
    calls: &Handle,
) -> Result<std::convert::Infallible, LinkError> {
    let mut bytes = Vec::new();
    encode(&Command::Hello { version: sallyport_plan::VERSION }, &mut bytes)?;
    stream.write_all(&bytes).await?;
    let mut pending = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            command = outbox.recv() => {
                let command = command.ok_or(LinkError::Closed)?;
                bytes.clear();
                encode(&command, &mut bytes)?;
                stream.write_all(&bytes).await?;
            }
            read = stream.read(&mut piece) => {
                let n = read?;
                if n == 0 {
                    return Err(LinkError::Closed);
                }
                pending.extend_from_slice(&piece[..n]);
                let mut used = 0;
                while let Some((event, n)) = decode::<Event>(&pending[used..])? {
                    used += n;
                    deliver(event, calls)?;
                }
                pending.drain(..used);
            }
        }
    }
}

fn deliver(event: Event, calls: &Handle) -> Result<(), LinkError> {
    let message = match event {
        Event::Hello { version, .. } if version != sallyport_plan::VERSION => {
            return Err(LinkError::Version(version));
        }
        Event::Hello { status, .. } => Message::RelayUp { status },
        event => Message::Relay(event),
    };
    if calls.tell(message) { Ok(()) } else { Err(LinkError::Closed) }
}
