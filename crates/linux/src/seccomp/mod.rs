//! System-call filters: a profile is compiled to classic BPF and installed for the calling thread.

mod names;

use std::io;

use serde::{Deserialize, Serialize};

pub use names::number;

use crate::{Error, Result};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    Allow,
    /// The call fails with this error number.
    Errno(u16),
    KillThread,
    KillProcess,
    Trap,
    Log,
}

impl Action {
    fn value(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::Log => libc::SECCOMP_RET_LOG,
        }
    }
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// The argument's bits within this mask are equal to the value.
    MaskedEqual(u64),
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    pub comparison: Comparison,
    pub value: u64,
}

/// What happens to some calls when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Names this architecture does not have are passed over.
    pub names: Vec<String>,
    pub action: Action,
    pub conditions: Vec<Condition>,
}

/// A whole filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// For calls without a matching rule.
    pub default: Action,
    /// The first that matches decides; those with conditions are asked first.
    pub rules: Vec<Rule>,
}

/// Instructions as the kernel takes them.
pub type Program = Vec<libc::sock_filter>;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: u32 = 0xc000_00f3;

/// Numbers from here on are calls of the x32 interface, which would slip past rules for the others.
const X32_BIT: u32 = 0x4000_0000;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Jumps reach 255 instructions; a group stays well below.
const GROUP: usize = 200;

/// Translates a profile.
pub fn compile(profile: &Profile) -> Program {
    let mut program = vec![
        instruction(LOAD, 4),
        jump(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        instruction(RETURN, profile.default.value()),
        instruction(LOAD, 0),
        jump(JUMP_GREATER_OR_EQUAL, X32_BIT, 0, 1),
        instruction(RETURN, profile.default.value()),
    ];
    let numbers = |rule: &Rule| rule.names.iter().filter_map(|name| number(name)).collect::<Vec<u32>>();
    for rule in profile.rules.iter().filter(|rule| !rule.conditions.is_empty()) {
        for call in numbers(rule) {
            conditional(&mut program, call, rule);
        }
    }
    for rule in profile.rules.iter().filter(|rule| rule.conditions.is_empty()) {
        for group in numbers(rule).chunks(GROUP) {
            for (at, call) in group.iter().enumerate() {
                program.push(jump(JUMP_EQUAL, *call, (group.len() - at) as u8, 0));
            }
            program.push(instruction(JUMP, 1));
            program.push(instruction(RETURN, rule.action.value()));
        }
    }
    program.push(instruction(RETURN, profile.default.value()));
    program
}

/// Where a comparison leads.
#[derive(Clone, Copy)]
enum To {
    Next,
    Holds,
    Fails,
}

fn conditional(program: &mut Program, call: u32, rule: &Rule) {
    let mut steps: Vec<(u16, u32, To, To)> = Vec::new();
    let mut ends = Vec::new();
    for condition in &rule.conditions {
        steps.extend(compare(condition));
        ends.push(steps.len());
    }
    let length = steps.len();
    // The number's test skips the comparisons and the answer; then the number is loaded again.
    program.push(jump(JUMP_EQUAL, call, 0, (length + 2) as u8));
    for (at, (code, value, yes, no)) in steps.into_iter().enumerate() {
        let end = ends.iter().find(|end| **end > at).copied().unwrap_or(length);
        let distance = |to| match to {
            To::Next => 0,
            To::Holds => (end - at - 1) as u8,
            To::Fails => (length - at) as u8,
        };
        program.push(jump(code, value, distance(yes), distance(no)));
    }
    program.push(instruction(RETURN, rule.action.value()));
    program.push(instruction(LOAD, 0));
}

fn compare(condition: &Condition) -> Vec<(u16, u32, To, To)> {
    let offset = 16 + 8 * u32::from(condition.argument.min(5));
    let (low, high) = (condition.value as u32, (condition.value >> 32) as u32);
    let (load_low, load_high) = ((LOAD, offset, To::Next, To::Next), (LOAD, offset + 4, To::Next, To::Next));
    match condition.comparison {
        Comparison::Equal => vec![
            load_high,
            (JUMP_EQUAL, high, To::Next, To::Fails),
            load_low,
            (JUMP_EQUAL, low, To::Next, To::Fails),
        ],
        Comparison::NotEqual => vec![
            load_high,
            (JUMP_EQUAL, high, To::Next, To::Holds),
            load_low,
            (JUMP_EQUAL, low, To::Fails, To::Next),
        ],
        Comparison::MaskedEqual(mask) => vec![
            load_high,
            (AND, (mask >> 32) as u32, To::Next, To::Next),
            (JUMP_EQUAL, high, To::Next, To::Fails),
            load_low,
            (AND, mask as u32, To::Next, To::Next),
            (JUMP_EQUAL, low, To::Next, To::Fails),
        ],
        Comparison::Greater | Comparison::GreaterOrEqual => {
            let last = if condition.comparison == Comparison::Greater {
                JUMP_GREATER
            } else {
                JUMP_GREATER_OR_EQUAL
            };
            vec![
                load_high,
                (JUMP_GREATER, high, To::Holds, To::Next),
                (JUMP_EQUAL, high, To::Next, To::Fails),
                load_low,
                (last, low, To::Next, To::Fails),
            ]
        }
        Comparison::Less | Comparison::LessOrEqual => {
            let last =
                if condition.comparison == Comparison::Less { JUMP_GREATER_OR_EQUAL } else { JUMP_GREATER };
            vec![
                load_high,
                (JUMP_GREATER, high, To::Fails, To::Next),
                (JUMP_EQUAL, high, To::Next, To::Holds),
                load_low,
                (last, low, To::Fails, To::Next),
            ]
        }
    }
}

fn instruction(code: u16, value: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k: value }
}

fn jump(code: u16, value: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: yes, jf: no, k: value }
}

/// Installs a filter for the calling thread and its children, for ever. It takes either `CAP_SYS_ADMIN` or that new
/// privileges are forbidden.
pub fn install(program: &Program) -> Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the instructions, of which there are as many as is said.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    if answer == 0 {
        Ok(())
    } else {
        Err(Error::new("install the system-call filter", io::Error::last_os_error()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &Program, call: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            0 => call,
            4 => ARCHITECTURE,
            offset => {
                let value = arguments[(offset as usize - 16) / 8];
                if (offset - 16).is_multiple_of(8) { value as u32 } else { (value >> 32) as u32 }
            }
        };
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let now = program[at];
            at += 1;
            let branch = |taken: bool| usize::from(if taken { now.jt } else { now.jf });
            match now.code {
                LOAD => accumulator = word(now.k),
                AND => accumulator &= now.k,
                JUMP => at += now.k as usize,
                JUMP_EQUAL => at += branch(accumulator == now.k),
                JUMP_GREATER => at += branch(accumulator > now.k),
                JUMP_GREATER_OR_EQUAL => at += branch(accumulator >= now.k),
                RETURN => return now.k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn every_comparison_decides_on_all_64_bits() {
        let big = 0x5_0000_0005_u64;
        let cases = [
            (Comparison::Equal, [false, false, true, false, false]),
            (Comparison::NotEqual, [true, true, false, true, true]),
            (Comparison::Less, [true, true, false, false, false]),
            (Comparison::LessOrEqual, [true, true, true, false, false]),
            (Comparison::Greater, [false, false, false, true, true]),
            (Comparison::GreaterOrEqual, [false, false, true, true, true]),
        ];
        for (comparison, expected) in cases {
            let condition = Condition { argument: 1, comparison, value: big };
            let rule =
                Rule { names: vec!["read".into()], action: Action::Allow, conditions: vec![condition] };
            let program = compile(&Profile { default: Action::Errno(1), rules: vec![rule] });
            let read = number("read").unwrap();
            let values = [0x4_ffff_ffff, big - 1, big, big + 1, 0x6_0000_0000];
            let found =
                values.map(|value| run(&program, read, [0, value, 0, 0, 0, 0]) == Action::Allow.value());
            assert_eq!(found, expected, "{comparison:?}");
        }
    }

    #[test]
    fn groups_masks_and_defaults() {
        let names: Vec<String> = names::all().map(str::to_owned).filter(|name| name != "clone").collect();
        let mask = Comparison::MaskedEqual(0x7e02_0000);
        let clone = Condition { argument: 0, comparison: mask, value: 0 };
        let program = compile(&Profile {
            default: Action::Errno(1),
            rules: vec![
                Rule { names, action: Action::Allow, conditions: vec![] },
                Rule { names: vec!["clone".into()], action: Action::Allow, conditions: vec![clone] },
            ],
        });
        let answer = |name: &str, first| run(&program, number(name).unwrap(), [first, 0, 0, 0, 0, 0]);
        assert_eq!(answer("write", 0), Action::Allow.value());
        assert_eq!(answer("openat2", 0), Action::Allow.value());
        assert_eq!(answer("clone", 0x11), Action::Allow.value());
        assert_eq!(answer("clone", 0x1002_0000), Action::Errno(1).value());
        assert_eq!(run(&program, 9999, [0; 6]), Action::Errno(1).value());
        assert_eq!(run(&program, X32_BIT | 1, [0; 6]), Action::Errno(1).value());
        assert!(number("nosuchcall").is_none());
    }
}
