//! What the kernel says of its wall clock: for checks of the machine, not for telling the time.

use std::io;

use crate::{Context, Result};

/// Seconds since 1970, and the status bits of `adjtimex(2)`.
pub fn state() -> Result<(i64, i32)> {
    // SAFETY: the structure is plain numbers, for which zero is valid; zero modes only read.
    let mut found: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a structure of the right type that lives through the call.
    let answer = unsafe { libc::adjtimex(&raw mut found) };
    if answer < 0 {
        return Err(io::Error::last_os_error()).context("read the clock's state");
    }
    Ok((found.time.tv_sec, found.status))
}
