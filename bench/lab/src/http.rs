//! A small HTTP/1.1 server for pages and stand-ins: a thread and one request a connection. Browsers open connections ahead of
//! need, which must not keep those waiting that ask.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;

use crate::namespace::Namespace;

/// Longest body that is read.
const BODY_MAX: usize = 1 << 20;
/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was asked.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST` ...
    pub method: String,
    /// Path with query.
    pub path: String,
    /// As UTF-8.
    pub body: String,
}

/// What is answered.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines, without length.
    pub headers: Vec<(&'static str, String)>,
    /// As UTF-8.
    pub body: String,
}

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens in a namespace and answers each request with what `answer` makes of it.
    ///
    /// # Errors
    /// Where the address is taken.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener = namespace.within(|| TcpListener::bind(address))?;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let answer = Arc::new(answer);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let answer = answer.clone();
                        // A client that goes away in the middle is no matter of ours.
                        thread::spawn(move || serve(stream, answer.as_ref()).ok());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_millis(5))
                    }
                    Err(_) => break,
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, answer: &impl Fn(&Request) -> Response) -> anyhow::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let request = read(&mut reader)?;
    let response = answer(&request);
    let mut text = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        text += &format!("{name}: {value}\r\n");
    }
    if response.status != 204 {
        text += &format!("Content-Length: {}\r\n", response.body.len());
    }
    text += "\r\n";
    text += &response.body;
    Ok(reader.get_mut().write_all(text.as_bytes())?)
}

fn read(reader: &mut impl BufRead) -> anyhow::Result<Request> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let method = words.next().context("no method")?.to_owned();
    let path = words.next().context("no path")?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse()?
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; std::cmp::min(length, BODY_MAX)];
    reader.read_exact(&mut body)?;
    Ok(Request { method, path, body: String::from_utf8(body)? })
}
