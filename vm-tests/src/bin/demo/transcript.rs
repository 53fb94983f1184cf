//! What the demo did, kept whole: every command as a line for a shell, everything it printed, how it ended.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use sys::{Cmd, Output};

/// The file `transcript.txt`.
pub struct Transcript {
    file: File,
    start: Instant,
}

impl Transcript {
    /// Starts a new transcript.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Transcript { file, start: Instant::now() })
    }

    /// Writes a heading.
    pub fn heading(&mut self, text: &str) -> Result<()> {
        writeln!(self.file, "\n=== [{:7.1} s] {text}", self.start.elapsed().as_secs_f64())?;
        Ok(())
    }

    /// Writes a remark.
    pub fn note(&mut self, text: &str) -> Result<()> {
        writeln!(self.file, "# {text}")?;
        Ok(())
    }

    /// Runs a command, records it whole, and wants exit code 0.
    pub fn run(&mut self, cmd: &Cmd) -> Result<Output> {
        let output = self.run_any(cmd)?;
        if output.code != 0 {
            let text = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = text.trim_end().lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            anyhow::bail!("`{}` ended with {}:\n{tail}", cmd.line(), output.code);
        }
        Ok(output)
    }

    /// Runs a command and records it whole, whatever its exit code.
    pub fn run_any(&mut self, cmd: &Cmd) -> Result<Output> {
        writeln!(self.file, "$ {}", cmd.line())?;
        self.file.flush()?;
        let start = Instant::now();
        let output = cmd.output()?;
        self.file.write_all(&output.stdout)?;
        self.file.write_all(&output.stderr)?;
        writeln!(self.file, "[exit {}, {:.1} s]", output.code, start.elapsed().as_secs_f64())?;
        Ok(output)
    }
}
