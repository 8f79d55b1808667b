//! The bpffs of our own, and what lies in it: a file per map, and per interface one `link-INDEX-MODE`.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::attach::Attachment;
use crate::error::LoadError;

/// Source of the mount in the list of mounts: it says that the mount is ours.
const SOURCE: &str = "sallyport";

/// The folder of the pins.
#[derive(Debug, Clone)]
pub struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// Pins that somebody else keeps.
    pub fn open(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }

    /// Makes sure that `folder` is a bpffs that only its owner may enter; a mount that is not there yet needs
    /// `CAP_SYS_ADMIN`. A folder on a bpffs that somebody else mounted is used as it is.
    ///
    /// # Errors
    /// [`LoadError::Pins`].
    pub fn prepare(folder: &Path) -> Result<Self, LoadError> {
        let pins = Self::open(folder);
        let done = pins.make_folder().and_then(|()| pins.mount());
        done.map_err(|source| pins.error(source))?;
        Ok(pins)
    }

    /// The error of this folder.
    pub fn error(&self, source: io::Error) -> LoadError {
        LoadError::Pins { path: self.folder.clone(), source }
    }

    fn make_folder(&self) -> io::Result<()> {
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.folder.is_dir() => Ok(()),
            done => done,
        }
    }

    fn mount(&self) -> io::Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        if !statfs(&self.folder).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC) {
            mount(Some(SOURCE), &self.folder, Some("bpf"), flags, Some("mode=0700"))?;
        } else if self.is_ours()? {
            fs::set_permissions(&self.folder, Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    /// Whether the folder is where a bpffs of ours is mounted (proc(5), mountinfo: field 5 and, behind the dash, the type
    /// and the source).
    fn is_ours(&self) -> io::Result<bool> {
        let folder = fs::canonicalize(&self.folder)?;
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
        Ok(mounts.lines().any(|line| {
            let Some((place, what)) = line.split_once(" - ") else { return false };
            let mut what = what.split(' ');
            place.split(' ').nth(4).map(Path::new) == Some(&folder)
                && (what.next(), what.next()) == (Some("bpf"), Some(SOURCE))
        }))
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the link of an interface is pinned. The kernel does not tell the mode of a link, so its name does.
    pub fn link(&self, ifindex: u32, attachment: Attachment) -> PathBuf {
        self.folder.join(format!("link-{ifindex}-{}", attachment.name()))
    }

    /// All pinned links.
    ///
    /// # Errors
    /// What the system says.
    pub fn links(&self) -> io::Result<Vec<(u32, Attachment)>> {
        let mut links = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            links.extend(entry?.file_name().to_str().and_then(link_of));
        }
        links.sort_unstable();
        Ok(links)
    }

    /// Nobody but the owner may open a pin.
    ///
    /// # Errors
    /// [`LoadError::Pins`].
    pub fn protect(&self, pin: &Path) -> Result<(), LoadError> {
        fs::set_permissions(pin, Permissions::from_mode(0o600)).map_err(|source| self.error(source))
    }

    /// Removes the links that `which` names; the kernel takes their programs off soon after.
    ///
    /// # Errors
    /// [`LoadError::Pins`].
    pub fn remove_links(&self, which: impl Fn(u32, Attachment) -> bool) -> Result<usize, LoadError> {
        let links = self.links().map_err(|source| self.error(source))?;
        let removed = links.into_iter().filter(|(ifindex, attachment)| which(*ifindex, *attachment));
        removed
            .map(|(ifindex, attachment)| remove(&self.link(ifindex, attachment)))
            .sum::<io::Result<usize>>()
            .map_err(|source| self.error(source))
    }

    /// Removes the maps; the kernel keeps them while a program or a process has them.
    ///
    /// # Errors
    /// [`LoadError::Pins`].
    pub fn remove_maps(&self) -> Result<(), LoadError> {
        let mut names = sallyport_abi::MAPS.iter();
        names.try_for_each(|name| remove(&self.map(name)).map(|_| ())).map_err(|source| self.error(source))
    }

    /// Unmounts the bpffs if it is ours, and removes the folder if it is empty then.
    ///
    /// # Errors
    /// [`LoadError::Pins`], such as for want of `CAP_SYS_ADMIN`.
    pub fn unmount(&self) -> Result<(), LoadError> {
        let ours = self.is_ours().map_err(|source| self.error(source))?;
        if ours {
            umount2(&self.folder, MntFlags::MNT_DETACH).map_err(|errno| self.error(errno.into()))?;
        }
        match fs::remove_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(self.error(error)),
            _ => Ok(()),
        }
    }
}

/// 1 where there was such a file.
fn remove(pin: &Path) -> io::Result<usize> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        done => done.map(|()| 1),
    }
}

/// Interface and mode of a link, by the name of its pin.
fn link_of(name: &str) -> Option<(u32, Attachment)> {
    let (ifindex, mode) = name.strip_prefix("link-")?.split_once('-')?;
    let attachment = [Attachment::Native, Attachment::Generic].into_iter().find(|one| one.name() == mode)?;
    Some((ifindex.parse().ok()?, attachment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links_read_back() {
        let pins = Pins::open(Path::new("/pins"));
        for wanted in [(1, Attachment::Native), (u32::MAX, Attachment::Generic)] {
            let path = pins.link(wanted.0, wanted.1);
            assert_eq!(link_of(path.file_name().unwrap().to_str().unwrap()), Some(wanted));
        }
        for other in
            ["flows", "link-", "link-3", "link-3-", "link-3-fast", "link--1-native", "link-4294967296-native"]
        {
            assert_eq!(link_of(other), None, "{other}");
        }
    }
}
