//! Why a pull did not succeed.

use std::io;

use crate::object::ObjectType;
use crate::sign::VerifyError;
use crate::value::Malformed;
use crate::{Checksum, Error};

/// Why a pull did not succeed. The repository holds only valid objects, and no ref was changed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The repository here.
    #[error(transparent)]
    Store(#[from] Error),
    /// Something could not be fetched.
    #[error("fetching {what} from {from}")]
    Fetch {
        /// What was wanted.
        what: String,
        /// The address.
        from: String,
        /// The cause.
        #[source]
        source: Transport,
    },
    /// An update broke off in the middle: the next pull goes on there, and fetching something else instead would cost more.
    #[error("the update was interrupted; what has arrived is kept, and the next pull goes on there")]
    Interrupted(#[source] Box<PullError>),
    /// An object is not what its name says.
    #[error("{kind} {expected} from {from} was tampered with or damaged: its content has the checksum {found}")]
    Mismatch {
        /// Kind of the object.
        kind: ObjectType,
        /// Its name.
        expected: Checksum,
        /// The checksum of what arrived.
        found: Checksum,
        /// The address.
        from: String,
    },
    /// What arrived is not an object.
    #[error("{what} from {from} is not valid")]
    Malformed {
        /// What was wanted.
        what: String,
        /// The address.
        from: String,
        /// What is wrong.
        #[source]
        source: Malformed,
    },
    /// No trusted key signed the commit.
    #[error("commit {commit} from {from} is not trusted")]
    Untrusted {
        /// The commit.
        commit: Checksum,
        /// The address.
        from: String,
        /// Why not.
        #[source]
        source: VerifyError,
    },
    /// No trusted key signed the summary.
    #[error("the summary {from} is not trusted")]
    SummaryUntrusted {
        /// The address.
        from: String,
        /// Why not.
        #[source]
        source: VerifyError,
    },
    /// The summary is no longer good.
    #[error("the summary {from} has expired ({expires}): its publisher has to sign a new one")]
    Expired {
        /// The address.
        from: String,
        /// When.
        expires: u64,
    },
    /// The summary is older than one that was accepted before: somebody shows an old state of the remote again.
    #[error("the summary {from} is older ({time}) than the one that was accepted last ({newest}): a replay")]
    Replayed {
        /// The address.
        from: String,
        /// When it was written.
        time: u64,
        /// When the one accepted last was written.
        newest: u64,
    },
    /// The commit was deleted there.
    #[error("commit {commit} was deleted from {from}")]
    Deleted {
        /// The commit.
        commit: Checksum,
        /// The address.
        from: String,
    },
    /// A file that may not be there.
    #[error("file {file} has the mode {mode:o}; setuid, setgid and files anybody may write to are not wanted here")]
    FileMode {
        /// The file.
        file: Checksum,
        /// Its mode.
        mode: u32,
    },
    /// The commit was made for another ref.
    #[error("commit {commit} belongs to {}, not to {wanted:?}", list(.bound))]
    Binding {
        /// The commit.
        commit: Checksum,
        /// The refs it names.
        bound: Vec<String>,
        /// The ref that was asked for.
        wanted: String,
    },
    /// The commit is older than the one that is here.
    #[error("commit {commit} is older ({timestamp}) than what is here ({current}, {than}): a downgrade")]
    Downgrade {
        /// The commit.
        commit: Checksum,
        /// Its time.
        timestamp: u64,
        /// The commit that is here.
        than: String,
        /// The time of the commit that is here.
        current: u64,
    },
    /// Only differences were wanted, and there are none.
    #[error("there is no static delta to commit {commit} that could be used, and objects were not asked for")]
    NoWay {
        /// The commit.
        commit: Checksum,
    },
    /// A static delta could not be used.
    #[error("applying the static delta {from}")]
    Delta {
        /// The address of its superblock.
        from: String,
        /// What is wrong.
        #[source]
        source: Box<crate::delta::DeltaError>,
    },
    /// There is not enough room.
    #[error("{needed} bytes are needed in {path}, {available} are free")]
    Space {
        /// The repository.
        path: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
}

fn list(refs: &[String]) -> String {
    if refs.is_empty() { "no ref".to_owned() } else { refs.join(", ") }
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Transport {
    /// It is not there.
    #[error("it is not there")]
    NotFound,
    /// The server answered with an error.
    #[error("the server answered {0}")]
    Status(u16),
    /// The server is busy, and says when to come again.
    #[error("the server answered {status}, and asks to wait for {seconds} s")]
    Busy {
        /// The status: 429, 503 or the like.
        status: u16,
        /// Seconds until then (`Retry-After`, RFC 9110, section 10.2.3).
        seconds: u64,
    },
    /// The connection failed, or what came over it could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Larger than it may be.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// The client cannot do what was asked.
    #[error("{0}")]
    Client(String),
}
