//! Pseudo-terminals.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::{Context, Result};

/// Opens a new terminal of the devpts at `/dev/pts`: the controlling side and the program's side.
pub fn open() -> Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let control = rustix::pty::openpt(flags).context("open /dev/ptmx")?;
    rustix::pty::unlockpt(&control).context("unlock the terminal")?;
    let program = rustix::pty::ioctl_tiocgptpeer(&control, flags).context("open the terminal")?;
    Ok((control, program))
}

/// Sets the size in characters.
pub fn resize(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Makes the calling process the leader of a session that this terminal controls.
pub fn take(terminal: BorrowedFd<'_>) -> Result<()> {
    rustix::process::setsid().context("start a session")?;
    rustix::process::ioctl_tiocsctty(terminal).context("take the terminal")
}

/// Sets whether reads and writes wait.
pub fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(fd)?;
    flags.set(OFlags::NONBLOCK, nonblocking);
    Ok(rustix::fs::fcntl_setfl(fd, flags)?)
}

/// A pipe whose ends close when a program is executed: reading end, writing end.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Opens `/dev/null` for reading and writing.
pub fn null() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("open /dev/null")
}

/// Whether a read failed because the program's side was closed by its last user: the end of the stream.
pub fn is_end(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

/// Lets the tasks of the current tokio runtime wait for a terminal, which is made not to wait itself.
pub fn watch(terminal: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<std::fs::File>> {
    use std::os::fd::AsFd;
    set_nonblocking(terminal.as_fd(), true)?;
    // SAFETY: a `File` owns its descriptor, which therefore stays the same until both are dropped together.
    let watched = unsafe { tokio::io::unix::AsyncFd::register(std::fs::File::from(terminal)) };
    Ok(watched?)
}
