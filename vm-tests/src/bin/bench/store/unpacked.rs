//! The point release with nothing compressed in it but what cannot be otherwise: what a tool that knows no compression
//! has the best chance with.
//!
//! ```text
//! pair/unpacked/          both commits: modules as .ko, the initramfs a plain cpio with modules as .ko in it
//! pair/unpacked-kernel/   the same, and the kernel image with its payload as it is in memory
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use sys::Cmd;

use super::World;
use super::pair::Pair;

/// What is done to the kernel image, which is code that boots with a compressed payload inside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// It stays as it is.
    Packed,
    /// Its payload is unpacked in its place. Nothing boots that: it is for measuring.
    Plain,
}

/// The two commits.
pub struct Unpacked {
    /// Both, in mode `bare-user`.
    pub repo: PathBuf,
    /// From trixie alone.
    pub old: String,
    /// With the updates.
    pub new: String,
}

impl Unpacked {
    /// Makes both where an earlier run has not.
    pub fn of(world: &World<'_>, pair: &Pair, kernel: Kernel) -> Result<Unpacked> {
        let base = if kernel == Kernel::Plain { "unpacked-kernel" } else { "unpacked" };
        let path = |name: &str| pair.build.with_file_name(format!("{base}{name}"));
        let (repo, done) = (path(""), path("-new"));
        if !done.exists() {
            sys::file::remove_tree(&repo)?;
            world.peer("init", &repo).arg("--mode=bare-user").run()?;
            for (name, commit) in [("old", &pair.old), ("new", &pair.new)] {
                let tree = path("-tree");
                sys::file::remove_tree(&tree)?;
                world.peer("checkout", &pair.build).arg("-U").arg(commit).arg(&tree).run()?;
                unpack(&tree)?;
                if kernel == Kernel::Plain {
                    plain_kernels(&tree)?;
                }
                let commit = world.peer("commit", &repo).arg("-b").arg(name).arg("--canonical-permissions");
                let commit = commit.args(["--owner-uid=0", "--owner-gid=0"]).arg(&tree).run()?.text();
                sys::file::remove_tree(&tree)?;
                std::fs::write(path(&format!("-{name}")), commit.trim())?;
            }
        }
        let read = |name: &str| std::fs::read_to_string(path(name)).with_context(|| format!("reading {base}{name}"));
        Ok(Unpacked { repo, old: read("-old")?, new: read("-new")? })
    }
}

/// Modules and initramfs of a tree that may share its files with a repository.
fn unpack(tree: &Path) -> Result<()> {
    // xz -f makes new files and takes the names of the old ones away: it never writes into them.
    let modules = "find \"$0\"/usr/lib/modules -name '*.ko.xz' -print0 | xargs -0 -P 2 -n 64 xz -df";
    Cmd::new("sh").args(["-euc", modules]).arg(tree).run()?;
    for kernel in std::fs::read_dir(tree.join("usr/lib/modules"))? {
        let image = kernel?.path().join("initramfs.img");
        let archive = Cmd::new("zstd").arg("-dcq").arg(&image).run()?.stdout;
        std::fs::remove_file(&image)?;
        std::fs::write(&image, with_plain_modules(&archive)?)?;
    }
    Ok(())
}

/// The payload of each kernel image takes its plain form. Where it lies stands in the header of the Linux/x86 boot protocol
/// (2.08 and later): offset and length, counted from the end of the sectors with the setup code.
fn plain_kernels(tree: &Path) -> Result<()> {
    for kernel in std::fs::read_dir(tree.join("usr/lib/modules"))? {
        let path = kernel?.path().join("vmlinuz");
        let image = std::fs::read(&path)?;
        let field = |at: usize| -> Result<usize> {
            let bytes = image.get(at..at + 4).context("the kernel image is cut off")?;
            Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
        };
        ensure!(image.get(0x202..0x206) == Some(b"HdrS"), "{} is no kernel for x86", path.display());
        let start = (usize::from(image[0x1f1]) + 1) * 512 + field(0x248)?;
        // After the compressed stream comes the length of what it becomes.
        let end = start + field(0x24c)? - 4;
        let payload = image.get(start..end).context("the kernel's payload is cut off")?;
        let plain = Cmd::new("zstd").arg("-dcq").stdin(payload.to_vec()).run()?.stdout;
        std::fs::remove_file(&path)?;
        std::fs::write(&path, [&image[..start], &plain, &image[end..]].concat())?;
    }
    Ok(())
}

/// Archives in newc form, one after the other as dracut writes them, with each `.ko.xz` unpacked.
fn with_plain_modules(archive: &[u8]) -> Result<Vec<u8>> {
    const HEAD: usize = 110;
    let padded = |at: usize| at.next_multiple_of(4);
    let (mut rest, mut out) = (archive, Vec::with_capacity(archive.len() * 2));
    while let Some(first) = rest.first() {
        if *first == 0 {
            out.push(0);
            rest = &rest[1..];
            continue;
        }
        ensure!(rest.starts_with(b"070701") && rest.len() > HEAD, "the initramfs is not a newc archive");
        let mut fields = [0usize; 13];
        for (field, digits) in fields.iter_mut().zip(rest[6..HEAD].chunks(8)) {
            *field = usize::from_str_radix(std::str::from_utf8(digits)?, 16)?;
        }
        let content = padded(HEAD + fields[11]);
        let end = content + fields[6];
        let mut name = rest.get(HEAD..HEAD + fields[11] - 1).context("a name is cut off")?;
        let mut data = rest.get(content..end).context("a file is cut off")?.to_vec();
        rest = rest.get(padded(end)..).unwrap_or_default();
        if let Some(plain) = name.strip_suffix(b".xz").filter(|plain| plain.ends_with(b".ko")) {
            name = plain;
            if !data.is_empty() {
                data = Cmd::new("xz").arg("-dc").stdin(data).run()?.stdout;
            }
        }
        (fields[6], fields[11]) = (data.len(), name.len() + 1);
        out.extend(b"070701");
        fields.iter().for_each(|field| out.extend(format!("{field:08x}").into_bytes()));
        out.extend(name.iter().chain([&0]));
        out.resize(padded(out.len()), 0);
        out.extend(data);
        out.resize(padded(out.len()), 0);
    }
    Ok(out)
}
