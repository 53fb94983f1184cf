//! `slipway image`.

use std::path::PathBuf;

use anyhow::Context;
use deploy::first;
use images::{Format, Options, Summary};
use store::Repo;
use sys::{Exit, Refused, Reporter};

/// Makes a disk image from a commit: partitions, LVM, root file system with fs-verity, boot loader. Needs no root.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The commit: a ref, a checksum, the beginning of one
    #[arg(value_name = "REF|COMMIT")]
    rev: String,
    /// The repository the commit is in
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    /// The image file to write; an existing one is replaced when the new one is complete
    #[arg(short, long, value_name = "FILE", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// The kind of image [default: by the name of the output, else raw]
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// Size of the disk
    #[arg(long, value_name = "SIZE", default_value = "8G", value_parser = parse_size)]
    size: u64,
    /// Size of the root volume; the rest of the volume group is left for containers
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_size)]
    root_size: u64,
    /// Name of the operating system below /ostree/deploy [default: the tree's]
    #[arg(long, value_name = "NAME")]
    stateroot: Option<String>,
    /// Where the machine gets updates, instead of the tree's address
    #[arg(long, value_name = "URL")]
    remote_url: Option<String>,
    /// The ref the machine follows, instead of the tree's
    #[arg(long, value_name = "REF")]
    remote_ref: Option<String>,
    /// A kernel argument after the tree's; may be given again
    #[arg(long = "karg", value_name = "ARG")]
    kargs: Vec<String>,
    /// A credential for the first boot, from a file; may be given again
    #[arg(long = "credential", value_name = "NAME=FILE")]
    credentials: Vec<String>,
    /// Make an image of a commit without a signature that its own tree trusts
    #[arg(long)]
    allow_unsigned: bool,
    /// Print what would be made, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print the result as JSON on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FormatArg {
    /// The bytes of the disk; a sparse file
    Raw,
    /// QEMU's format
    Qcow2,
}

/// `8G`, `512M`, `4096` (bytes).
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match text[digits.len()..].trim_end_matches("iB") {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        other => return Err(format!("`{other}` is not one of K, M, G, T")),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number".to_owned())?;
    number.checked_mul(unit).filter(|n| *n <= 1 << 46).ok_or_else(|| "too large".to_owned())
}

fn credential(text: &str) -> anyhow::Result<(String, Vec<u8>)> {
    let Some((name, file)) = text.split_once('=') else {
        anyhow::bail!("--credential {text}: give it as NAME=FILE");
    };
    let bytes = std::fs::read(file).with_context(|| format!("cannot read credential {name} from {file}"))?;
    Ok((name.to_owned(), bytes))
}

/// Makes the image.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let repo = Repo::open(&args.repo)?;
    let commit = repo.resolve(&args.rev)?;
    let ref_name = repo.refs()?.contains_key(&args.rev).then(|| args.rev.clone());
    let by_name = args.output.as_ref().is_some_and(|o| o.extension().is_some_and(|e| e == "qcow2"));
    let format = match args.format {
        Some(FormatArg::Qcow2) => Format::Qcow2,
        None if by_name => Format::Qcow2,
        _ => Format::Raw,
    };
    let options = Options {
        size: args.size,
        root_size: args.root_size,
        format,
        allow_unsigned: args.allow_unsigned,
        first: first::Options {
            os: args.stateroot,
            extra_kargs: args.kargs,
            remote_url: args.remote_url,
            remote_ref: args.remote_ref,
            ref_name,
            signer: None,
            credentials: args.credentials.iter().map(|c| credential(c)).collect::<anyhow::Result<_>>()?,
        },
    };
    let reporter = Reporter::new();
    let step = reporter.step("plan", 0);
    let plan = images::plan(&repo, &commit, &options).map_err(refuse)?;
    step.done(format!("{} {}", plan.summary.deployment, plan.summary.version.as_deref().unwrap_or("")));
    print_plan(&reporter, &plan.summary);
    let summary = match args.output {
        Some(output) if !args.dry_run => {
            let summary = plan.execute(&output, &reporter).map_err(refuse)?;
            reporter.note(format!("image: {}", output.display()));
            summary
        }
        _ => plan.summary,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    }
    Ok(Exit::Done)
}

fn print_plan(reporter: &Reporter, summary: &Summary) {
    let mib = |bytes: u64| bytes >> 20;
    reporter.note(format!("commit      {}", summary.commit));
    reporter.note(format!("signed by   {}", summary.signer.as_deref().unwrap_or("nobody the tree trusts")));
    reporter.note(format!(
        "disk        {} MiB, {} MiB of the volume group free",
        mib(summary.size),
        mib(summary.group_free)
    ));
    reporter.note(format!("root        {} of {} MiB", mib(summary.root_used), mib(summary.root_size)));
}

/// An expected "no" ends with exit code 3 and says what to do.
fn refuse(error: images::Error) -> anyhow::Error {
    match error.refusal() {
        Some(hint) => Refused::with_hint(error.to_string(), hint).into(),
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("8G"), Ok(8 << 30));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("10GiB"), Ok(10 << 30));
        assert_eq!(parse_size("4096"), Ok(4096));
        for bad in ["", "G", "8X", "-1", "99999999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
