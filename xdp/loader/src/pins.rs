//! The bpffs of our own.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Makes sure that `folder` is a bpffs that only we may enter.
///
/// # Errors
/// What the system says; mounting needs CAP_SYS_ADMIN.
pub fn prepare(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if !is_bpffs(folder) {
        let options = Some("mode=0700");
        mount(Some("bpf"), folder, Some("bpf"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, options)?;
    }
    Ok(())
}

/// Whether `folder` lies on a bpffs.
pub fn is_bpffs(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

/// Nobody but the owner may open a pin.
pub fn protect(pin: &Path) -> io::Result<()> {
    fs::set_permissions(pin, fs::Permissions::from_mode(0o600))
}

/// Where the link of an interface is pinned.
pub fn link(folder: &Path, ifindex: u32) -> std::path::PathBuf {
    folder.join(format!("link-{ifindex}"))
}
