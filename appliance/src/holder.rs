//! The descriptor store of `sallyport run`: what systemd's is under systemd, by the same protocol (sd_notify(3)).
//!
//! Children send datagrams to `NOTIFY_SOCKET`: `READY=1`, `STATUS=...`, and with `FDSTORE=1` descriptors that are to
//! outlive them. The next process of that name gets them back by `LISTEN_FDS`.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Descriptors that the store keeps at the most (systemd: `FileDescriptorStoreMax`).
const STORE_MAX: usize = 64;

/// A descriptor and the name that it was stored under.
#[derive(Debug)]
pub struct Stored {
    /// `FDNAME=`
    pub name: String,
    /// The descriptor.
    pub descriptor: OwnedFd,
}

/// What a child said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// `READY=1`
    pub ready: bool,
    /// `STATUS=`
    pub status: Option<String>,
}

/// One child's notification socket and its descriptors.
#[derive(Debug)]
pub struct Holder {
    socket: UnixDatagram,
    path: PathBuf,
    store: Vec<Stored>,
}

impl Holder {
    /// Opens the socket at `path`.
    ///
    /// # Errors
    /// What the system says of the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path: path.into(), store: Vec::new() })
    }

    /// For `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is stored now.
    pub fn store(&self) -> &[Stored] {
        &self.store
    }

    /// Takes everything that was sent since the last time.
    pub fn poll(&mut self) -> Said {
        let mut said = Said::default();
        while let Ok((text, descriptors)) = self.receive() {
            let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            said.ready |= value("READY") == Some("1");
            if let Some(status) = value("STATUS") {
                said.status = Some(status.into());
            }
            let name = value("FDNAME").unwrap_or("stored").to_owned();
            if value("FDSTOREREMOVE") == Some("1") {
                self.store.retain(|stored| stored.name != name);
            }
            if value("FDSTORE") == Some("1") {
                let room = STORE_MAX.saturating_sub(self.store.len());
                let kept = descriptors.into_iter().take(room);
                self.store.extend(kept.map(|descriptor| Stored { name: name.clone(), descriptor }));
            }
        }
        said
    }

    fn receive(&self) -> io::Result<(String, Vec<OwnedFd>)> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, &mut slices, &mut ancillary, flags)?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                descriptors.extend(sent);
            }
        }
        let text = String::from_utf8_lossy(bytes.get(..received.bytes).unwrap_or_default()).into_owned();
        Ok((text, descriptors))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::fs::File;
    use std::io::{IoSlice, Read, Seek, Write};
    use std::os::fd::AsFd;

    fn send(to: &Path, text: &str, descriptor: Option<&File>) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(to).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let sent: Vec<_> = descriptor.iter().map(|file| file.as_fd()).collect();
        if !sent.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&sent)));
        }
        sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::empty()).unwrap();
    }

    #[test]
    fn stores_descriptors_by_name_and_gives_them_up() {
        let path = std::env::temp_dir().join(format!("sallyport-holder-{}", std::process::id()));
        let mut holder = Holder::open(&path).unwrap();
        let memory = nix::sys::memfd::memfd_create("test", nix::sys::memfd::MFdFlags::empty()).unwrap();
        let mut file = File::from(memory);
        file.write_all(b"kept").unwrap();
        send(&path, "FDSTORE=1\nFDNAME=sessions", Some(&file));
        send(&path, "READY=1\nSTATUS=two calls", None);
        assert_eq!(holder.poll(), Said { ready: true, status: Some("two calls".into()) });
        drop(file);
        let mut again = File::from(holder.store()[0].descriptor.try_clone().unwrap());
        again.rewind().unwrap();
        let mut text = String::new();
        again.read_to_string(&mut text).unwrap();
        assert_eq!((holder.store()[0].name.as_str(), text.as_str()), ("sessions", "kept"));
        send(&path, "FDSTOREREMOVE=1\nFDNAME=sessions", None);
        assert_eq!(holder.poll(), Said::default());
        assert!(holder.store().is_empty());
    }
}
