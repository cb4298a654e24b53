//! Which URLs name an archive: never one that means another place than it says.

use comlog_archive::{ArchiveError, ArchiveStore, StoreOptions};

fn open(url: &str) -> Result<ArchiveStore, ArchiveError> {
    ArchiveStore::open(url, StoreOptions::default())
}

#[test]
fn a_url_that_would_be_cut_off_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().display();
    for rest in ["ha#1", "ha#", "ha?x=1"] {
        let refused = open(&format!("file://{path}/{rest}"));
        assert!(matches!(refused, Err(ArchiveError::Config(_))), "{rest}");
        let refused = open(&format!("memory:///{rest}"));
        assert!(matches!(refused, Err(ArchiveError::Config(_))), "{rest}");
    }
    assert!(!folder.path().join("ha").exists(), "nothing is made");
    open(&format!("file://{path}/ha%231")).expect("it is named as it is");
    assert!(folder.path().join("ha#1").is_dir());
}

#[test]
fn a_relative_file_url_is_refused() {
    // Resolved against nothing they would be folders of the root.
    for url in ["file:comlog-test-relative", "file:./comlog-test-relative"] {
        let refused = open(url).map(drop);
        let message = refused.expect_err("it is relative").to_string();
        assert!(message.contains("file:///absolute/path"), "{message}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    open(&format!("file:{}", folder.path().display())).expect("it begins at the root");
}
