//! What is missing or exchanged in an archive is named by `archive verify`, and not restored.

#[allow(dead_code, reason = "the other tests use more of it")]
mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use harness::Server;
use tempfile::TempDir;

/// An archive of three topics, one of them that of committed offsets, whose server has ended.
struct Archive {
    folder: TempDir,
    server: Server,
    /// The ids of the topics `two`, which has two partitions, and `one`.
    ids: [String; 2],
}

impl Archive {
    fn make() -> Archive {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Server::start_with(&[
            "--archive".to_owned(),
            url(&folder.path().join("whole")),
            "--archive-single-writer".to_owned(),
            "--set=archive.interval_ms=20".to_owned(),
        ]);
        server.ok(&["topic", "create", "two", "--partitions", "2"], b"");
        for (topic, partition) in [("two", "0"), ("two", "1"), ("one", "0")] {
            let args = ["produce", topic, "--partition", partition];
            server.ok(&args, format!("{topic} {partition}\n").as_bytes());
        }
        server.ok(&["archive", "flush"], b"");
        let ids = ["two", "one"].map(|topic| {
            let described = server.json(&["topic", "describe", topic]);
            described[0]["id"]
                .as_str()
                .expect("it has an id")
                .to_owned()
        });
        server.stop();
        Archive {
            folder,
            server,
            ids,
        }
    }

    /// That `change` to a copy of the archive is found, and that `named` is said to be wrong.
    fn finds(&self, what: &str, change: impl Fn(&Path), named: &str) {
        let (copy, to) = (self.copy(), self.folder.path().join("to"));
        change(&copy.join("topics"));
        let verified = self
            .server
            .run(&["archive", "verify", "--from", &url(&copy)], b"");
        assert_eq!(verified.status.code(), Some(6), "{what}: {verified:?}");
        let said = String::from_utf8_lossy(&verified.stdout);
        assert!(said.contains(named), "{what}: {said}");
        let to_text = to.to_str().expect("a temporary path is text");
        let args = ["restore", "--from", &url(&copy), "--to", to_text];
        let restored = self.server.run(&args, b"");
        assert_eq!(restored.status.code(), Some(6), "{what}: {restored:?}");
        assert!(!to.exists(), "{what}: nothing is made of a part");
    }

    /// That neither command finds anything wrong after `change`.
    fn is_sound(&self, what: &str, change: impl Fn(&Path)) {
        let (copy, to) = (self.copy(), self.folder.path().join("sound"));
        change(&copy.join("topics"));
        let to_text = to.to_str().expect("a temporary path is text");
        for args in [
            &["archive", "verify", "--from", &url(&copy)][..],
            &["restore", "--from", &url(&copy), "--to", to_text],
        ] {
            let done = self.server.run(args, b"");
            assert_eq!(done.status.code(), Some(0), "{what}: {done:?}");
        }
        fs::remove_dir_all(to).expect("it was made");
    }

    fn copy(&self) -> PathBuf {
        let copy = self.folder.path().join("copy");
        if copy.exists() {
            fs::remove_dir_all(&copy).expect("it can be removed");
        }
        copy_dir(&self.folder.path().join("whole"), &copy);
        copy
    }
}

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it can be made");
    for entry in fs::read_dir(from).expect("it can be listed") {
        let entry = entry.expect("it can be listed");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it can be copied");
        }
    }
}

fn exchange(one: &Path, other: &Path) {
    let (first, second) = (fs::read(one), fs::read(other));
    fs::write(one, second.expect("it is there")).expect("it can be written");
    fs::write(other, first.expect("it is there")).expect("it can be written");
}

fn remove(path: &Path) {
    fs::remove_file(path).expect("it is there");
}

#[test]
fn what_is_missing_or_exchanged_is_named_and_not_restored() {
    let archive = Archive::make();
    let [two, one] = &archive.ids;
    archive.is_sound("nothing", |_| {});
    let manifest = format!("{two}/1/manifest");
    archive.finds("a manifest", |dir| remove(&dir.join(&manifest)), &manifest);
    let everything = |dir: &Path| {
        fs::remove_dir_all(dir.join(two).join("1")).expect("it is there");
    };
    archive.finds("a whole partition", everything, &manifest);
    for name in ["topic", "partitions", "0/manifest"] {
        let named = format!("{two}/{name}");
        let swap = |dir: &Path| exchange(&dir.join(&named), &dir.join(one).join(name));
        archive.finds(&format!("{name} exchanged"), swap, &named);
    }
    for name in ["topic", "partitions"] {
        let named = format!("{two}/{name}");
        archive.finds(name, |dir| remove(&dir.join(&named)), &named);
    }
}

#[test]
fn a_partition_number_in_a_key_is_not_believed() {
    let archive = Archive::make();
    let [two, _] = &archive.ids;
    let copy = |name: &'static str| {
        move |dir: &Path| copy_dir(&dir.join(two).join("0"), &dir.join(two).join(name))
    };
    let named = format!("{two}/4294967295/manifest");
    archive.finds("a copied partition", copy("4294967295"), &named);
    // No writer makes such a key: nobody names what lies there.
    archive.is_sound("a number written otherwise", copy("007"));
}
