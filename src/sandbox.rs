//! This program runs no other program, and no library of its may: sled would run `sync`, which waits until every
//! file system of the machine has written everything. Where the kernel has no Landlock, that is only slower.

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};

/// Forbids this process, from now on, to execute any file.
pub fn forbid_exec() {
    let execute = AccessFs::from_all(ABI::V1) & AccessFs::Execute;
    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(execute);
    // Best effort: what it prevents costs time, not truth.
    let _ = rules.and_then(Ruleset::create).and_then(landlock::RulesetCreated::restrict_self);
}
