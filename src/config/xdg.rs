//! Base directories of the XDG specification.

use std::path::PathBuf;

/// Returns the base directory of a kind of file: the one in `variable`, or else `below_home` in the home directory.
pub fn xdg_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))
}
