//! The local socket that control connects to: one thread accepts, one reads; the uplink writes.

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, thread};

use sallyport_plan::{Command, Event, MESSAGE_MAX, decode, encode};
use zeroize::{Zeroize, Zeroizing};

/// How long control may leave its socket unread before it is taken for dead.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// Octets that are read at once.
const PIECE: usize = 64 * 1024;

/// What comes from the socket.
#[derive(Debug)]
pub enum FromControl {
    /// A new control; it replaces the one before.
    Connected(Connection),
    /// A command of connection `id`.
    Command {
        /// Which connection.
        id: u64,
        /// What it asks.
        command: Box<Command>,
    },
    /// Connection `id` has ended.
    Gone {
        /// Which connection.
        id: u64,
    },
}

/// The writing half of a connection.
#[derive(Debug)]
pub struct Connection {
    /// Names the connection.
    pub id: u64,
    stream: UnixStream,
    scratch: Vec<u8>,
}

impl Connection {
    /// Sends one event.
    ///
    /// # Errors
    /// What the socket says; the connection is then of no use.
    pub fn send(&mut self, event: &Event) -> io::Result<()> {
        encode(event, &mut self.scratch).map_err(io::Error::other)?;
        let sent = self.stream.write_all(&self.scratch);
        // Plans hold keys.
        self.scratch.zeroize();
        sent
    }

    /// Ends the connection: the reader sees its end.
    pub fn close(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// Listens on `path` (mode 0660: the group decides who may be control) and hands everything to `deliver`, which says
/// whether anybody still listens.
///
/// # Errors
/// What the system says of the path or the thread.
pub fn listen<F>(path: &Path, deliver: F) -> io::Result<()>
where
    F: Fn(FromControl) -> bool + Clone + Send + 'static,
{
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    thread::Builder::new().name("accept".into()).spawn(move || accept(&listener, &deliver))?;
    Ok(())
}

fn accept<F>(listener: &UnixListener, deliver: &F)
where
    F: Fn(FromControl) -> bool + Clone + Send + 'static,
{
    static NEXT: AtomicU64 = AtomicU64::new(1);
    for stream in listener.incoming() {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        match stream.and_then(|stream| admit(id, stream, deliver.clone())) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(%error, "a connection from control failed"),
        }
    }
}

fn admit<F>(id: u64, stream: UnixStream, deliver: F) -> io::Result<bool>
where
    F: Fn(FromControl) -> bool + Send + 'static,
{
    let reader = stream.try_clone()?;
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    let listening = deliver(FromControl::Connected(Connection { id, stream, scratch: Vec::new() }));
    if listening {
        thread::Builder::new().name("control".into()).spawn(move || read(id, reader, &deliver))?;
    }
    Ok(listening)
}

fn read(id: u64, mut stream: UnixStream, deliver: &impl Fn(FromControl) -> bool) {
    if let Err(error) = follow(id, &mut stream, deliver) {
        tracing::warn!(%error, "control broke the contract or its socket; connection closed");
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    deliver(FromControl::Gone { id });
}

fn follow(id: u64, stream: &mut UnixStream, deliver: &impl Fn(FromControl) -> bool) -> io::Result<()> {
    // Plans hold keys; at this size the buffer never has to move.
    let mut pending = Zeroizing::new(Vec::with_capacity(4 + MESSAGE_MAX + PIECE));
    let mut piece = Zeroizing::new(vec![0; PIECE]);
    loop {
        let n = stream.read(&mut piece)?;
        if n == 0 {
            return Ok(());
        }
        pending.extend_from_slice(&piece[..n]);
        let mut used = 0;
        while let Some((command, n)) = decode(&pending[used..]).map_err(io::Error::other)? {
            used += n;
            if !deliver(FromControl::Command { id, command: Box::new(command) }) {
                return Ok(());
            }
        }
        let left = pending.len() - used;
        pending.copy_within(used.., 0);
        pending[left..].zeroize();
        pending.truncate(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sallyport_plan::CallId;
    use std::sync::mpsc::channel;

    fn socket(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("sallyport-{name}-{}.sock", std::process::id()))
    }

    #[test]
    fn commands_arrive_and_events_go_back() {
        let path = socket("link");
        let (tx, rx) = channel();
        listen(&path, move |message| tx.send(message).is_ok()).unwrap();
        let mut control = UnixStream::connect(&path).unwrap();
        let FromControl::Connected(mut connection) = rx.recv().unwrap() else { panic!("not connected") };
        let mut bytes = Vec::new();
        encode(&Command::Remove { call: CallId(9) }, &mut bytes).unwrap();
        control.write_all(&bytes).unwrap();
        let FromControl::Command { id, command } = rx.recv().unwrap() else { panic!("no command") };
        assert_eq!((id, *command), (connection.id, Command::Remove { call: CallId(9) }));
        connection.send(&Event::Listed).unwrap();
        let mut answer = [0; 64];
        let n = control.read(&mut answer).unwrap();
        assert_eq!(decode(&answer[..n]).unwrap(), Some((Event::Listed, n)));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn rubbish_ends_the_connection_only() {
        let path = socket("rubbish");
        let (tx, rx) = channel();
        listen(&path, move |message| tx.send(message).is_ok()).unwrap();
        let mut control = UnixStream::connect(&path).unwrap();
        control.write_all(&[0xff; 16]).unwrap();
        assert!(matches!(rx.recv().unwrap(), FromControl::Connected(_)));
        assert!(matches!(rx.recv().unwrap(), FromControl::Gone { .. }));
        assert_eq!(control.read(&mut [0; 8]).unwrap(), 0);
        assert!(UnixStream::connect(&path).is_ok());
        fs::remove_file(path).unwrap();
    }
}
