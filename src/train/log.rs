//! `metrics.jsonl`: one JSON object a step.

use super::metrics::StepRecord;
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// An open log, positioned at its end.
#[derive(Debug)]
pub struct StepLog {
    path: PathBuf,
    file: File,
    line: Vec<u8>,
}

impl StepLog {
    /// Opens or makes the log of a run that stands at `step`: lines of later steps, and a line cut short by a crash, are
    /// dropped, so that going on from an older checkpoint leaves the log of a run that was never interrupted.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        let doing = |doing| move |e| Error::io(e, doing, path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(doing("open the log"))?;
        let kept = kept_len(&file, step).map_err(doing("read the log"))?;
        file.set_len(kept).map_err(doing("shorten the log"))?;
        file.seek(SeekFrom::End(0)).map_err(doing("find the end of the log"))?;
        Ok(Self { path: path.to_path_buf(), file, line: Vec::new() })
    }

    /// Appends one step, in one write.
    pub fn append(&mut self, record: &StepRecord) -> Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record).expect("plain data");
        self.line.push(b'\n');
        let n_byte = self.line.len();
        self.file.write_all(&self.line).map_err(|e| Error::io(e, &format!("write {n_byte} bytes"), &self.path))
    }

    /// Makes sure that what was appended survives a power cut. Called before a checkpoint is written, so that no
    /// checkpoint is ever ahead of its log.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(e, "sync the log", &self.path))
    }
}

/// Length in bytes of the leading lines that are whole and belong to steps up to `step`.
fn kept_len(file: &File, step: u64) -> std::io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut kept, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let n_byte = reader.read_until(b'\n', &mut line)?;
        let whole = line.last() == Some(&b'\n');
        match serde_json::from_slice::<StepRecord>(&line) {
            Ok(record) if whole && record.step <= step => kept += n_byte as u64,
            _ => return Ok(kept),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64) -> StepRecord {
        StepRecord { step, nats: 5.0 / step as f64, lr: 1e-4, grad_norm: 1.0, applied: true, validation: None }
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn going_back_drops_later_lines_and_torn_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = StepLog::open(&path, 0).unwrap();
        (1..=5).for_each(|step| log.append(&record(step)).unwrap());
        let whole = text(&path);
        assert_eq!(whole.lines().count(), 5);

        // A crash in the middle of a line.
        std::fs::write(&path, format!("{whole}{{\"step\":6,\"na")).unwrap();
        drop(StepLog::open(&path, 9).unwrap());
        assert_eq!(text(&path), whole);

        // Back to step 3, and on again: the same bytes as without the detour.
        let mut log = StepLog::open(&path, 3).unwrap();
        assert_eq!(text(&path).lines().count(), 3);
        (4..=5).for_each(|step| log.append(&record(step)).unwrap());
        log.sync().unwrap();
        assert_eq!(text(&path), whole);
    }
}
