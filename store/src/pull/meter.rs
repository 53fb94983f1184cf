//! How far a pull is.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{OnProgress, Progress};

/// Nobody knows the total yet.
const UNKNOWN: u64 = u64::MAX;

/// Counts what arrives, and tells whoever wants to know.
pub struct Meter<'a> {
    progress: Option<OnProgress<'a>>,
    objects: AtomicU64,
    objects_total: AtomicU64,
    bytes: AtomicU64,
    bytes_total: AtomicU64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(progress: Option<OnProgress<'a>>) -> Self {
        let zero = || AtomicU64::new(0);
        let bytes_total = AtomicU64::new(UNKNOWN);
        Meter { progress, objects: zero(), objects_total: zero(), bytes: zero(), bytes_total }
    }

    /// So many bytes more are to be fetched.
    pub(super) fn expect(&self, bytes: u64) {
        let total = self.bytes.load(Ordering::Relaxed).saturating_add(bytes);
        self.bytes_total.store(total, Ordering::Relaxed);
        self.report();
    }

    /// So many objects more are to be fetched.
    pub(super) fn expect_objects(&self, objects: u64) {
        let total = self.objects.load(Ordering::Relaxed).saturating_add(objects);
        self.objects_total.store(total, Ordering::Relaxed);
        self.report();
    }

    /// Bytes have arrived. Told once a MiB: small objects are told by their number.
    pub(super) fn bytes(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before >> 20 != (before + bytes) >> 20 {
            self.report();
        }
    }

    /// Objects have arrived.
    pub(super) fn objects(&self, objects: u64) {
        self.objects.fetch_add(objects, Ordering::Relaxed);
        self.report();
    }

    pub(super) fn now(&self) -> Progress {
        let total = self.bytes_total.load(Ordering::Relaxed);
        Progress {
            objects: self.objects.load(Ordering::Relaxed),
            objects_total: self.objects_total.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_total: (total != UNKNOWN).then_some(total),
        }
    }

    pub(super) fn report(&self) {
        if let Some(progress) = self.progress {
            progress(&self.now());
        }
    }
}
