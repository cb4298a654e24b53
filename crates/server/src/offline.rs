//! The files that belong to no partition, seen from outside while no server has them open.
#![allow(
    clippy::disallowed_methods,
    reason = "this reads files of the local disk"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use comlog_log::frame::{Kind, Owner};
use serde_json::{Value, json};

use crate::archive::{WRITER_BLOBS, WRITER_KIND};
use crate::topic_store::{self, BLOB_PREFIX, COPY_BLOB, Stage, TOPICS_DIR, TopicMeta};
use crate::{meta_file, producer_ids};

/// Larger files are not what we know.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaFinding {
    /// Where.
    pub path: PathBuf,
    /// Whether something is lost by it, or not served until somebody puts it right; else the next
    /// start does.
    pub is_lost: bool,
    /// What it is, and what to do.
    pub reason: String,
}

/// Checks a data directory's metadata: of topics, their copies, what directories there have to be,
/// producer ids, and the name of the writer to the archive. Empty when all is well, or when `dir`
/// is no data directory.
///
/// # Errors
/// A directory that cannot be listed.
pub fn check_meta(dir: &Path) -> io::Result<Vec<MetaFinding>> {
    let meta = dir.join(crate::broker::META_DIR);
    if !meta.is_dir() && !dir.join("format").is_file() {
        return Ok(Vec::new());
    }
    let mut check = Check {
        dir,
        findings: Vec::new(),
    };
    let has_topics = check.topics()?;
    let ids = producer_ids::BLOBS.map(|blob| meta.join(blob));
    check.pair(producer_ids::KIND, &ids, has_topics);
    let names = WRITER_BLOBS.map(|blob| meta.join(blob));
    check.pair(WRITER_KIND, &names, false);
    Ok(check.findings)
}

/// What a file of the kinds that [`check_meta`] checks says; `None` when it is of none of them.
///
/// # Errors
/// Why it cannot be used.
#[must_use]
pub fn inspect_meta(content: &[u8]) -> Option<Result<Value, String>> {
    let is = |kind: Kind| content.starts_with(&kind.magic);
    if is(topic_store::KIND) {
        Some(inspect_topic(content))
    } else if is(producer_ids::KIND) {
        let said = |payload: &[u8]| {
            let end = payload.try_into().map(i64::from_be_bytes);
            let end = end.map_err(|_| "it makes no sense".to_owned())?;
            Ok(json!({"kind": "producer_ids", "end": end}))
        };
        Some(inspect_with(producer_ids::KIND, content, said))
    } else if is(WRITER_KIND) {
        let said = |payload: &[u8]| {
            let id = String::from_utf8_lossy(payload);
            Ok(json!({"kind": "archive_writer", "id": id}))
        };
        Some(inspect_with(WRITER_KIND, content, said))
    } else {
        None
    }
}

fn inspect_with(
    kind: Kind,
    content: &[u8],
    said: impl Fn(&[u8]) -> Result<Value, String>,
) -> Result<Value, String> {
    let decoded = meta_file::decode(kind, Owner::SERVER, content);
    let (generation, payload) = decoded.map_err(|error| error.to_string())?;
    let mut value = said(&payload)?;
    value["generation"] = json!(generation);
    Ok(value)
}

fn inspect_topic(content: &[u8]) -> Result<Value, String> {
    let opened = comlog_log::frame::Decoder::open_any(topic_store::KIND, content);
    let frame = opened.map_err(|error| error.to_string())?;
    let id = format!("{:032x}", frame.owner().topic_id);
    let topic = topic_store::decode(&id, content)?;
    let mut value = serde_json::to_value(&topic).map_err(|error| error.to_string())?;
    value["kind"] = json!("topic");
    value["generation"] = json!(frame.generation());
    Ok(value)
}

struct Check<'a> {
    dir: &'a Path,
    findings: Vec<MetaFinding>,
}

impl Check<'_> {
    fn found(&mut self, path: &Path, is_lost: bool, reason: impl Into<String>) {
        self.findings.push(MetaFinding {
            path: path.to_owned(),
            is_lost,
            reason: reason.into(),
        });
    }

    /// Whether there are any.
    fn topics(&mut self) -> io::Result<bool> {
        let meta = self.dir.join(crate::broker::META_DIR);
        let topics = self.dir.join(TOPICS_DIR);
        let mut directories = BTreeSet::new();
        for (name, is_dir) in entries(&topics)? {
            if is_dir && Owner::parse_topic_id(&name).is_some() {
                directories.insert(name);
            } else {
                let reason = "not a topic's directory; nothing looks into it";
                self.found(&topics.join(name), false, reason);
            }
        }
        let mut ids = directories.clone();
        let files = entries(&meta)?.into_iter();
        ids.extend(files.filter_map(|(name, _)| Some(name.strip_prefix(BLOB_PREFIX)?.to_owned())));
        let mut names: BTreeMap<String, Vec<TopicMeta>> = BTreeMap::new();
        for id in &ids {
            let Some(topic) = self.topic(id, directories.contains(id)) else {
                continue;
            };
            if topic.stage == Stage::Live {
                self.partitions(&topic)?;
                names.entry(topic.name.clone()).or_default().push(topic);
            }
        }
        for mut topics in names.into_values() {
            topics.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
            for younger in &topics[1..] {
                let reason = format!("not served: the older topic {} has its name", topics[0].id);
                self.found(&self.dir.join(younger.dir()), true, reason);
            }
        }
        Ok(!ids.is_empty())
    }

    /// The newest metadata of a topic; reports where there is none, or only one copy.
    fn topic(&mut self, id: &str, has_directory: bool) -> Option<TopicMeta> {
        let meta = self.dir.join(crate::broker::META_DIR);
        let blob = meta.join(format!("{BLOB_PREFIX}{id}"));
        let directory = self.dir.join(TOPICS_DIR).join(id);
        let mut places = vec![blob];
        if has_directory {
            places.push(directory.join(COPY_BLOB));
        }
        let owner = Owner::topic(Owner::parse_topic_id(id).unwrap_or(0));
        let (best, flaws) = read(topic_store::KIND, owner, &places);
        let parsed = best.map(|content| topic_store::decode(id, &content));
        match parsed {
            Some(Ok(topic)) => {
                // One that comes or goes is kept once.
                if topic.stage == Stage::Live {
                    self.flaws(flaws);
                }
                Some(topic)
            }
            unusable => {
                let mut reasons: Vec<String> = flaws.iter().map(described).collect();
                reasons.extend(unusable.and_then(Result::err));
                let reason = format!(
                    "a topic without usable metadata, which is not served ({}); put \
                     meta/{BLOB_PREFIX}{id} back from a backup",
                    reasons.join("; ")
                );
                self.found(&directory, true, reason);
                None
            }
        }
    }

    fn partitions(&mut self, topic: &TopicMeta) -> io::Result<()> {
        let directory = self.dir.join(topic.dir());
        let there: BTreeSet<String> = entries(&directory)?
            .into_iter()
            .filter_map(|(name, is_dir)| is_dir.then_some(name))
            .collect();
        for partition in 0..topic.partitions {
            if !there.contains(&partition.to_string()) {
                let reason = "the partition's directory is gone, and its records with it; put it \
                              back from a backup, or restore from an archive";
                self.found(&directory.join(partition.to_string()), true, reason);
            }
        }
        for name in there {
            let partition = name.parse::<u32>();
            if partition.is_ok_and(|partition| partition >= topic.partitions) {
                let reason = "beyond the topic's partitions: left by an attempt to add some";
                self.found(&directory.join(name), false, reason);
            }
        }
        Ok(())
    }

    /// A file of the server that is kept twice.
    fn pair(&mut self, kind: Kind, places: &[PathBuf], is_needed: bool) {
        let (best, flaws) = read(kind, Owner::SERVER, places);
        let missing = flaws.iter().filter(|(_, reason)| reason == MISSING).count();
        if best.is_some() {
            self.flaws(flaws);
        } else if is_needed || missing < places.len() {
            for flaw in flaws {
                let reason = format!("{}; the other copy cannot be used either", flaw.1);
                self.found(&flaw.0, true, reason);
            }
        }
    }

    fn flaws(&mut self, flaws: Vec<(PathBuf, String)>) {
        for (path, reason) in flaws {
            let reason = format!("{reason}; the next start writes it anew from the other copy");
            self.found(&path, false, reason);
        }
    }
}

const MISSING: &str = "missing";

fn described((path, reason): &(PathBuf, String)) -> String {
    format!("{}: {reason}", path.display())
}

/// The newest content that is whole, and what is wrong with the other places.
fn read(kind: Kind, owner: Owner, places: &[PathBuf]) -> (Option<Vec<u8>>, Vec<(PathBuf, String)>) {
    let mut whole: Vec<(u64, &PathBuf, Vec<u8>)> = Vec::new();
    let mut flaws = Vec::new();
    for path in places {
        match read_file(path) {
            Ok(content) => match meta_file::decode(kind, owner, &content) {
                Ok((generation, _)) => whole.push((generation, path, content)),
                Err(error) => flaws.push((path.clone(), error.to_string())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                flaws.push((path.clone(), MISSING.to_owned()));
            }
            Err(error) => flaws.push((path.clone(), error.to_string())),
        }
    }
    let newest = whole.iter().map(|(generation, ..)| *generation).max();
    let older = whole.iter().filter(|(found, ..)| Some(*found) < newest);
    flaws.extend(older.map(|(_, path, _)| ((*path).clone(), "an older copy".to_owned())));
    let best = whole.into_iter().find(|(found, ..)| Some(*found) == newest);
    (best.map(|(.., content)| content), flaws)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

/// Names, and whether each is a directory or a link to one; none when there is no such directory.
fn entries(dir: &Path) -> io::Result<Vec<(String, bool)>> {
    let listed = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            found.push((name, entry.path().is_dir()));
        }
    }
    found.sort();
    Ok(found)
}
