//! A Landlock sandbox that prevents the process from executing files. sha-api executes none itself, but
//! opening sled would run `sync`, which waits for all file systems of the machine. Without Landlock, opening is slower.

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};

/// Prevents this process from executing files. Does nothing if the kernel does not support Landlock.
pub fn forbid_exec() {
    let execute = AccessFs::from_all(ABI::V1) & AccessFs::Execute;
    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(execute);
    // A failure is ignored: without the sandbox, `sync` costs time, but does no harm.
    let _ = rules.and_then(Ruleset::create).and_then(landlock::RulesetCreated::restrict_self);
}
