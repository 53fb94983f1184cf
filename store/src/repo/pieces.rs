//! Raw deflate of files that do not fit into memory, on several cores.
//!
//! ```text
//! content   | piece 0 | piece 1 | piece 2 | …      1 MiB each, whoever compresses them
//! piece n   may refer to the 32 KiB before it, which its encoder has as a dictionary
//!           -> its blocks, none of them the last, up to a whole byte (a sync flush); those of the last piece to the end
//! stream    the pieces one after the other: one stream for every decoder, and the same for any number of threads
//! ```
//! The thread that reads the file also hashes it, writes the pieces in their order, and compresses when there is nothing
//! to read ahead for. Memory: two pieces for each thread that is at work on a file, and helpers are shared by all files of
//! a batch.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use flate2::{Compress, Compression, FlushCompress, Status};

use super::deflate::{dense, store};

/// What is compressed at a time.
const PIECE: usize = 1 << 20;
/// How far back deflate refers.
const WINDOW: usize = 32 << 10;

/// Threads that may help with large files.
pub(super) struct Helpers(AtomicUsize);

impl Helpers {
    pub fn new(count: usize) -> Helpers {
        Helpers(AtomicUsize::new(count))
    }

    fn hire(&self) -> Option<Hired<'_>> {
        let hired = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1));
        hired.is_ok().then(|| Hired(self))
    }
}

/// One of them, until it is dropped.
struct Hired<'a>(&'a Helpers);

impl Drop for Hired<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A piece to compress.
struct Job {
    /// What lies before it in the file, then the piece.
    bytes: Vec<u8>,
    /// Where it begins.
    start: usize,
    last: bool,
    done: SyncSender<io::Result<Vec<u8>>>,
}

impl Job {
    fn run(self, level: u8) {
        let (window, piece) = self.bytes.split_at(self.start);
        // Who waits for it may have given up.
        let _ = self.done.send(compress(window, piece, self.last, level));
    }
}

/// Pieces that nobody compresses yet.
#[derive(Default)]
struct Queue {
    state: Mutex<(VecDeque<Job>, bool)>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<Job>, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        self.lock().0.push_back(job);
        self.changed.notify_one();
    }

    fn try_take(&self) -> Option<Job> {
        self.lock().0.pop_front()
    }

    /// Waits for one; `None` when no more will come.
    fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            match state.0.pop_front() {
                None if !state.1 => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                job => return job,
            }
        }
    }
}

/// Closes a queue, also where reading or writing has failed: helpers do not wait for more.
struct Closing<'a>(&'a Queue);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.0.clear();
        state.1 = true;
        self.0.changed.notify_all();
    }
}

/// Compresses all that `content` has and writes the stream to `out`; `seen` is shown the content in its order.
pub(super) fn deflate_pieces(
    content: &mut dyn Read,
    level: u8,
    helpers: &Helpers,
    seen: &mut dyn FnMut(&[u8]),
    out: &mut dyn Write,
) -> io::Result<()> {
    in_pieces(PIECE, content, level, helpers, seen, out)
}

fn in_pieces(
    size: usize,
    content: &mut dyn Read,
    level: u8,
    helpers: &Helpers,
    seen: &mut dyn FnMut(&[u8]),
    out: &mut dyn Write,
) -> io::Result<()> {
    let queue = Queue::default();
    std::thread::scope(|scope| {
        let _closing = Closing(&queue);
        let mut pending: VecDeque<Receiver<io::Result<Vec<u8>>>> = VecDeque::new();
        let mut threads = 1;
        let mut next = read_piece(size, &[], content, seen)?;
        loop {
            let (bytes, start) = next;
            next = read_piece(size, &bytes, content, seen)?;
            let last = next.0.len() == next.1;
            let (done, result) = sync_channel(1);
            queue.push(Job { bytes, start, last, done });
            pending.push_back(result);
            if let Some(hired) = helpers.hire() {
                threads += 1;
                let queue = &queue;
                scope.spawn(move || {
                    let _hired = hired;
                    while let Some(job) = queue.take() {
                        job.run(level);
                    }
                });
            }
            let most = if last { 0 } else { 2 * threads };
            while pending.len() > most {
                if let Some(job) = queue.try_take() {
                    job.run(level);
                } else if let Some(result) = pending.pop_front() {
                    let died = |_| Err(io::Error::other("a thread that compresses died"));
                    out.write_all(&result.recv().unwrap_or_else(died)?)?;
                }
            }
            if last {
                return Ok(());
            }
        }
    })
}

/// The next piece, behind the end of what comes before it; and where it begins.
fn read_piece(
    size: usize,
    before: &[u8],
    content: &mut dyn Read,
    seen: &mut dyn FnMut(&[u8]),
) -> io::Result<(Vec<u8>, usize)> {
    let window = &before[before.len().saturating_sub(WINDOW)..];
    let mut bytes = Vec::with_capacity(window.len() + size);
    bytes.extend_from_slice(window);
    content.take(size as u64).read_to_end(&mut bytes)?;
    seen(&bytes[window.len()..]);
    Ok((bytes, window.len()))
}

/// The blocks of one piece.
fn compress(window: &[u8], piece: &[u8], last: bool, level: u8) -> io::Result<Vec<u8>> {
    // More than anything becomes, so that what a flush writes does not depend on where memory ended.
    let mut bytes = Vec::with_capacity(piece.len() + piece.len() / 8 + (64 << 10));
    if level == 0 || dense(piece) {
        store(piece, last, &mut bytes);
        return Ok(bytes);
    }
    let mut encoder = Compress::new(Compression::new(u32::from(level)), false);
    if !window.is_empty() {
        encoder.set_dictionary(window).map_err(io::Error::other)?;
    }
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    feed(&mut encoder, piece, flush, &mut bytes)?;
    Ok(bytes)
}

/// Passes all of `input` to an encoder, and flushes it.
fn feed(encoder: &mut Compress, mut input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) -> io::Result<()> {
    loop {
        if out.len() == out.capacity() {
            out.reserve(64 << 10);
        }
        let before = encoder.total_in();
        let status = encoder.compress_vec(input, out, flush).map_err(io::Error::other)?;
        input = &input[(encoder.total_in() - before) as usize..];
        // Where room is left, all is out that was to come out.
        let flushed = input.is_empty() && out.len() < out.capacity() && flush != FlushCompress::Finish;
        if flushed || status == Status::StreamEnd {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::deflate::inflate_into;
    use super::*;
    use proptest::prelude::*;

    fn packed(size: usize, content: &[u8], level: u8, helpers: usize) -> Vec<u8> {
        let (mut out, mut seen) = (Vec::new(), Vec::new());
        let helpers = Helpers::new(helpers);
        in_pieces(size, &mut &*content, level, &helpers, &mut |bytes| seen.extend_from_slice(bytes), &mut out).unwrap();
        assert_eq!(seen, content);
        out
    }

    fn unpacked(stream: &[u8], size: usize) -> Vec<u8> {
        let mut whole = Vec::new();
        let whole = inflate_into(stream, size as u64, &mut whole).unwrap().to_vec();
        let mut streamed = Vec::new();
        let mut rest = stream;
        flate2::bufread::DeflateDecoder::new(&mut rest).read_to_end(&mut streamed).unwrap();
        assert!(rest.is_empty(), "{} bytes behind the end", rest.len());
        assert_eq!(whole, streamed);
        whole
    }

    fn text(count: u64) -> Vec<u8> {
        (0..count).flat_map(|n| format!("line {} of a file\n", n * n % 1009).into_bytes()).collect()
    }

    #[test]
    fn threads_change_nothing_but_the_time() {
        let mut content = text(200_000);
        // In the middle something that is stored, and something that becomes next to nothing.
        content.extend((0..3_000_000u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8));
        content.resize(content.len() + 3 * PIECE, 0);
        let alone = packed(PIECE, &content, 6, 0);
        assert_eq!(unpacked(&alone, content.len()), content);
        for helpers in [1, 7] {
            assert_eq!(packed(PIECE, &content, 6, helpers), alone, "{helpers} helpers");
        }
    }

    #[test]
    fn pieces_cost_next_to_nothing() {
        let content = text(300_000);
        let mut whole = flate2::write::DeflateEncoder::new(Vec::new(), Compression::new(6));
        whole.write_all(&content).unwrap();
        let (whole, pieces) = (whole.finish().unwrap().len(), packed(PIECE, &content, 6, 1).len());
        // Of what shrinks to a twentieth: less of everything else.
        assert!(pieces < whole + whole / 50, "{pieces} bytes in pieces, {whole} in one");
    }

    #[test]
    fn every_length_around_a_piece_ends_where_it_should() {
        for size in [0, 1, 4999, 5000, 5001, 9999, 10_000, 10_001] {
            let content = &text(2000)[..size];
            assert_eq!(unpacked(&packed(5000, content, 6, 1), size), content, "{size}");
        }
    }

    #[test]
    fn a_reader_or_writer_that_fails_ends_it() {
        struct Failing(u32);
        impl Read for Failing {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("gone"))?;
                buffer.fill(7);
                Ok(buffer.len())
            }
        }
        impl Write for Failing {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("full"))?;
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for count in [0, 3] {
            let helpers = Helpers::new(count);
            let run = |content: &mut dyn Read, out: &mut dyn Write| {
                in_pieces(4096, content, 6, &helpers, &mut |_| {}, out).unwrap_err().to_string()
            };
            assert_eq!(run(&mut Failing(9), &mut io::sink()), "gone");
            assert_eq!(run(&mut &text(20_000)[..], &mut Failing(2)), "full");
            assert_eq!(helpers.0.load(Ordering::Relaxed), count, "all are free again");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn everything_comes_back(
            mut content in prop::collection::vec(0..6u8, 0..60_000),
            noise in prop::collection::vec(any::<u8>(), 0..9_000),
            size in 3_000usize..40_000,
            level in 0..10u8,
            helpers in 0..3usize,
        ) {
            content.extend(noise);
            content.extend_from_within(..content.len() / 2);
            prop_assert_eq!(unpacked(&packed(size, &content, level, helpers), content.len()), content);
        }
    }
}
