//! Files that hold other files: an initramfs that is not compressed holds modules and programs which are in the tree.
//!
//! ```text
//! outer   |..|== new file a ==|..|== new file b ==|..|      the rest against the old outer file
//! part    a, b, outer: w-from-source of a and b             objects of a part are made in order
//! ```
//! What was sent for `a` and `b` is not sent again inside of the outer file. Sources that the same part makes are in
//! its order before the file that reads them, so that every client has them by then.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;

use super::New;
use super::diff::{Piece, align, copies};
use super::encode::{Form, Limits, content, estimate, own};
use crate::equal::word;
use crate::{Checksum, Error, Repo};

/// Outer files are at least this large.
pub(super) const OUTER: u64 = 1 << 20;
/// Inner ones too.
const INNER: u64 = 4 << 10;
/// Bytes by which an inner file is recognized.
const HEAD: usize = 64;
/// Archives align files to as many bytes at least.
const ALIGN: usize = 4;

/// The beginnings of the new files.
pub(super) struct Heads {
    words: HashSet<u64>,
    heads: HashMap<[u8; HEAD], Vec<usize>>,
}

impl Heads {
    /// Reads the beginnings of those files that `may` allows.
    pub fn of(repo: &Repo, files: &[New], may: impl Fn(usize) -> bool) -> Result<Self, Error> {
        let mut found = Heads { words: HashSet::new(), heads: HashMap::new() };
        for (index, file) in files.iter().enumerate() {
            if file.meta.symlink.is_some() || file.meta.size < INNER || !may(index) {
                continue;
            }
            let mut head = [0; HEAD];
            let mut object = repo.open_file(&file.checksum)?;
            let io = |e| Error::io(format!("reading file {}", file.checksum), e);
            object.content.read_exact(&mut head).map_err(io)?;
            found.words.insert(word(&head, 0));
            found.heads.entry(head).or_default().push(index);
        }
        Ok(found)
    }
}

/// A file made of others.
pub(super) struct Nested {
    pub form: Form,
    pub estimate: u64,
    /// The new files that it is made of.
    pub inner: Vec<usize>,
}

/// Makes the file `outer` of other new files as far as it holds them, and the rest of an old one.
pub(super) fn nest(
    repo: &Repo,
    files: &[New],
    outer: usize,
    heads: &Heads,
    source: Option<&Checksum>,
    limits: &Limits,
) -> Result<Option<Nested>, Error> {
    let new = content(repo, &files[outer].checksum)?;
    let mut inside: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while at + HEAD <= new.len() {
        let mut step = ALIGN;
        if heads.words.contains(&word(&new, at)) {
            for &index in heads.heads.get(&new[at..at + HEAD]).map_or(&[][..], Vec::as_slice) {
                let len = usize::try_from(files[index].meta.size).unwrap_or(usize::MAX);
                if index != outer
                    && len <= new.len() - at
                    && content(repo, &files[index].checksum)? == new[at..at + len]
                {
                    inside.push((at, index));
                    step = len.next_multiple_of(ALIGN);
                    break;
                }
            }
        }
        at += step;
    }
    if inside.is_empty() {
        return Ok(None);
    }
    // What is between them, in one, and where in it the inner files stood.
    let (mut rest, mut marks, mut done) = (Vec::new(), Vec::new(), 0);
    for (at, index) in &inside {
        rest.extend_from_slice(&new[done..*at]);
        marks.push((rest.len(), *index));
        done = at + files[*index].meta.size as usize;
    }
    rest.extend_from_slice(&new[done..]);
    drop(new);
    let old = match source {
        Some(source) => {
            let meta = repo.load_file_meta(source)?;
            let fits = meta.symlink.is_none() && meta.size.saturating_add(rest.len() as u64) <= limits.both;
            if fits { content(repo, source)? } else { Vec::new() }
        }
        None => Vec::new(),
    };
    let between = copies(&old, &rest, &align(&old, &rest));
    drop(old);
    let bytes: Vec<u8> = between.iter().flat_map(|piece| own(&rest, piece).iter().copied()).collect();
    let pieces = weave(&between, &marks, files);
    let estimate = estimate(&bytes) + pieces.len() as u64 * 8;
    let mut inner: Vec<usize> = inside.into_iter().map(|(_, index)| index).collect();
    inner.sort_unstable();
    inner.dedup();
    Ok(Some(Nested { form: Form::Copies { source: source.copied(), pieces, bytes }, estimate, inner }))
}

/// Puts the inner files at their places between the pieces of the rest.
fn weave(between: &[Piece], marks: &[(usize, usize)], files: &[New]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(between.len() + marks.len() * 2);
    let mut marks = marks.iter().peekable();
    let mut at = 0;
    let mut due = |at: usize, pieces: &mut Vec<Piece>| {
        while let Some((_, index)) = marks.next_if(|(mark, _)| *mark <= at) {
            let file = &files[*index];
            pieces.push(Piece::Whole { object: file.checksum, len: file.meta.size as usize });
        }
        marks.peek().map(|(mark, _)| *mark)
    };
    for piece in between {
        let (mut offset, mut left) = match *piece {
            Piece::Copy { old, len } => (old, len),
            Piece::Bytes { at, len } => (at, len),
            Piece::Whole { .. } => continue,
        };
        while left > 0 {
            let next = due(at, &mut pieces).unwrap_or(usize::MAX);
            let len = left.min(next - at);
            pieces.push(match piece {
                Piece::Copy { .. } => Piece::Copy { old: offset, len },
                _ => Piece::Bytes { at: offset, len },
            });
            (offset, left, at) = (offset + len, left - len, at + len);
        }
    }
    due(at, &mut pieces);
    pieces
}
