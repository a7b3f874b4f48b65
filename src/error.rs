//! One error type: what happened, where, and what to do next, with an exit code for each kind.

use crate::console::OneLine;
use std::fmt;
use std::path::Path;

/// The kinds of failure a user can meet. The discriminant is the process's exit code; codes are never reused, and
/// those above 63 follow `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Command-line arguments that parse but contradict each other (clap itself exits with 2 as well).
    Usage = 2,
    /// Loss or gradient was not finite for several steps in a row, or what a model predicts is not.
    NonFiniteTraining = 3,
    /// The file is of no format we read.
    UnknownFormat = 10,
    /// A recording without channels or without timesteps.
    EmptyRecording = 11,
    /// A sample of the signal is NaN or infinite.
    NonFiniteSignal = 12,
    /// A channel that never changes cannot be scaled.
    ZeroVariance = 13,
    /// The channels of a model and of the data differ.
    ChannelMismatch = 14,
    /// A condition the model or the class map does not know.
    UnknownCondition = 15,
    /// The recording, or one of its parts, is shorter than one window.
    TooShort = 16,
    /// Shards made by different tokenizers, or a shard that the model was not trained on the like of.
    TokenizerMismatch = 17,
    /// A checkpoint whose shapes are not those asked for.
    ShapeMismatch = 18,
    /// Quantising lost more than `--max-error` allows.
    ReconstructionError = 19,
    /// A subject the model does not know.
    UnknownSubject = 20,
    /// Sampling rates differ, or one is missing or makes no sense.
    SamplingRate = 21,
    /// The content of a file is damaged or inconsistent: truncated, a checksum that fails, a header that lies.
    Corrupt = 65,
    /// A file or folder that should be there is not.
    NotFound = 66,
    /// The device asked for cannot be had on this machine or in this build.
    DeviceUnavailable = 69,
    /// A defect of the program itself.
    Internal = 70,
    /// The output exists already and `--force` was not given.
    Exists = 73,
    /// The operating system failed a read or a write (disk full, a file that shrank under us).
    Io = 74,
    /// Another process holds the run folder.
    Locked = 75,
    /// The file system refuses permission.
    Permission = 77,
}

/// What happened, where, and what to do next.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    place: Option<String>,
    hint: Option<String>,
}

/// The result of anything that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`; `what` is one clause without a full stop, naming the numbers that matter.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), place: None, hint: None }
    }

    /// Names the file the error is about. The innermost place wins.
    pub fn at(mut self, path: impl AsRef<Path>) -> Self {
        self.place.get_or_insert_with(|| path.as_ref().display().to_string());
        self
    }

    /// Says what to do next: one sentence without a full stop. The innermost hint wins.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Adds a sentence, without a full stop, to what to do next.
    pub fn also(mut self, hint: &str) -> Self {
        self.hint = Some(self.hint.map_or_else(|| hint.to_string(), |first| format!("{first}. {hint}")));
        self
    }

    /// Wraps a failure of the operating system, keeping permission and absence apart from everything else.
    /// `doing` names the operation and what it wanted ("write 5242880 bytes").
    pub fn io(error: std::io::Error, doing: &str, path: impl AsRef<Path>) -> Self {
        use std::io::ErrorKind as E;
        let kind = match error.kind() {
            E::NotFound => Kind::NotFound,
            E::PermissionDenied | E::ReadOnlyFilesystem => Kind::Permission,
            E::UnexpectedEof => Kind::Corrupt,
            _ => Kind::Io,
        };
        Self::new(kind, format!("cannot {doing}: {error}")).at(path)
    }

    /// The kind, for callers that handle some failures themselves.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The process's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        self.kind as u8
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}: ", OneLine(place))?;
        }
        write!(f, "{}", OneLine(&self.what))?;
        if let Some(hint) = &self.hint {
            write!(f, ". {}", OneLine(hint))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Returns early with an [`Error`] unless the condition holds: `ensure!(cond, Kind::X, "what {}", arg)`.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $kind:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::error::Error::new($kind, format!($($what)+)));
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_what_and_what_next() {
        let error = Error::new(Kind::Exists, "the file exists").at("a.fif").hint("Give --force to replace it");
        assert_eq!(error.to_string(), "a.fif: the file exists. Give --force to replace it");
        assert_eq!(error.exit_code(), 73);
    }

    /// A folder that may not be written to, a disk that is full, a file that is not there: three exit codes.
    #[test]
    fn failures_of_the_system_have_their_kinds() {
        for (errno, code) in
            [(libc::EACCES, 77), (libc::EPERM, 77), (libc::EROFS, 77), (libc::ENOENT, 66), (libc::ENOSPC, 74)]
        {
            let error = Error::io(std::io::Error::from_raw_os_error(errno), "write", "a.fif");
            assert_eq!(error.exit_code(), code, "{error}");
            assert!(error.to_string().starts_with("a.fif: cannot write: "), "{error}");
        }
    }

    #[test]
    fn the_innermost_place_and_hint_win() {
        let error = Error::new(Kind::Io, "x").at("inner").at("outer").hint("inner hint").hint("outer hint");
        assert_eq!(error.to_string(), "inner: x. inner hint");
    }
}
