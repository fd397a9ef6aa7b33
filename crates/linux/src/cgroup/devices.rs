//! Which devices a group's members may open or make: a list of rules in version 1, a small program in version 2.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Cgroup, limits};
use crate::{Error, Result};

/// Allows a device. Everything that no rule allows is forbidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// `c`, `b`, or `a` for both.
    pub kind: char,
    /// `None` for any.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Of `r`, `w`, `m`.
    pub access: String,
}

impl DeviceRule {
    /// Allows everything.
    pub fn all() -> Self {
        Self { kind: 'a', major: None, minor: None, access: "rwm".into() }
    }

    fn text(&self) -> String {
        let number = |value: Option<u32>| value.map_or("*".into(), |value| value.to_string());
        format!("{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}

pub(super) fn set(group: &Cgroup, rules: &[DeviceRule]) -> Result<()> {
    if let Some(directory) = group.v1("devices") {
        limits::write(&directory, "devices.deny", "a")?;
        for rule in rules {
            limits::write(&directory, "devices.allow", &rule.text())?;
        }
        return Ok(());
    }
    match group.open_unified()? {
        Some(directory) => attach(directory.as_fd(), &program(rules)),
        None => Ok(()),
    }
}

/// An eBPF instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER_32: u8 = 0xbc;
const MOVE_64: u8 = 0xb7;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_ACC_*` and `BPF_DEVCG_DEV_*` of `linux/bpf.h`.
fn access_bits(access: &str) -> i32 {
    access.chars().fold(0, |bits, letter| {
        bits | match letter {
            'm' => 1,
            'r' => 2,
            'w' => 4,
            _ => 0,
        }
    })
}

/// The context has three words: access type (access in the high half, device type in the low one), major, minor.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut out = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(AND_32, 2, 0, 0, 0xffff),
        op(LOAD_WORD, 3, 1, 0, 0),
        op(SHIFT_RIGHT_32, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut tests = Vec::new();
        if let Some(kind) = match rule.kind {
            'b' => Some(1),
            'c' => Some(2),
            _ => None,
        } {
            tests.push(vec![op(JUMP_NOT_EQUAL, 2, 0, 0, kind)]);
        }
        let bits = access_bits(&rule.access);
        if bits != 7 {
            // What is asked for must be within what is allowed: asked & allowed == asked.
            tests.push(vec![
                op(MOVE_REGISTER_32, 1, 3, 0, 0),
                op(AND_32, 1, 0, 0, bits),
                op(JUMP_NOT_EQUAL_REGISTER, 1, 3, 0, 0),
            ]);
        }
        if let Some(major) = rule.major {
            tests.push(vec![op(JUMP_NOT_EQUAL, 4, 0, 0, major as i32)]);
        }
        if let Some(minor) = rule.minor {
            tests.push(vec![op(JUMP_NOT_EQUAL, 5, 0, 0, minor as i32)]);
        }
        let mut block: Vec<Instruction> = tests.into_iter().flatten().collect();
        block.extend([op(MOVE_64, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
        let length = block.len();
        for (at, instruction) in block.iter_mut().enumerate() {
            if matches!(instruction.code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
                instruction.offset = (length - at - 1) as i16;
            }
        }
        out.extend(block);
    }
    out.extend([op(MOVE_64, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    out
}

#[repr(C)]
struct LoadArguments {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct AttachArguments {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

fn attach(directory: BorrowedFd<'_>, program: &[Instruction]) -> Result<()> {
    let load = LoadArguments {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    let loaded = bpf(BPF_PROG_LOAD, &load).map_err(|error| Error::new("load the device rules", error))?;
    // SAFETY: the kernel made the descriptor for us.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    // The directory is opened anew: a descriptor that only points at it is not accepted.
    let path = crate::path::descriptor_path(directory);
    let directory = crate::path::open_for_reading(&path)?;
    let attach = AttachArguments {
        target: directory.as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags: 0,
    };
    bpf(BPF_PROG_ATTACH, &attach).map(drop).map_err(|error| Error::new("attach the device rules", error))
}

fn bpf<T>(command: i32, arguments: &T) -> io::Result<i32> {
    // SAFETY: the structure and what it points to outlive the call, and its size is given.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(arguments), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program, in a group of the unified hierarchy that this machine has, with or without controllers.
    #[test]
    fn the_program_lets_through_what_is_allowed() {
        let hierarchies = super::super::Hierarchies::detect().unwrap();
        let (true, Some(mount)) = (crate::facts::is_root(), &hierarchies.unified) else {
            println!("skipped: it takes root and a unified hierarchy");
            return;
        };
        let directory = mount.join(format!("kobune-test-devices-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let null = DeviceRule { kind: 'c', major: Some(1), minor: Some(3), access: "r".into() };
        let opened = crate::path::open_root(&directory).unwrap();
        attach(opened.as_fd(), &program(&[null])).unwrap();
        // Reading is allowed for the one, writing is not, and nothing for the other.
        let script = format!(
            "echo $$ > {}/cgroup.procs; (: < /dev/null) && (: > /dev/null) || (: < /dev/zero) || echo as expected",
            directory.display()
        );
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(script)
            .stdin(std::process::Stdio::piped())
            .output();
        let gone = std::fs::remove_dir(&directory);
        assert_eq!(String::from_utf8_lossy(&output.unwrap().stdout), "as expected\n");
        gone.unwrap();
    }

    #[test]
    fn rules_become_text_and_program() {
        let null = DeviceRule { kind: 'c', major: Some(1), minor: Some(3), access: "rw".into() };
        let make_any = DeviceRule { kind: 'b', major: None, minor: None, access: "m".into() };
        assert_eq!((null.text(), make_any.text()), ("c 1:3 rw".into(), "b *:* m".into()));
        let program = program(&[null]);
        // Six loads, eight for the rule, two to refuse; each failed test lands on the refusal.
        assert_eq!(program.len(), 16);
        for (at, instruction) in program.iter().enumerate() {
            if matches!(instruction.code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
                assert_eq!(at + 1 + instruction.offset as usize, 14);
            }
        }
    }
}
