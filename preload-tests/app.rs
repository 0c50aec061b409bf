//! A program with all that it is to be run with.

use crate::artifacts::artifacts;
use crate::outcome::Outcome;
use crate::running::Running;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// See the module. Each has a folder of its own, which is the program's working directory and where its reports go;
/// clones share it.
#[derive(Clone, Debug)]
pub struct App {
    program: OsString,
    args: Vec<OsString>,
    options: String,
    env: Vec<(OsString, OsString)>,
    preload: Vec<OsString>,
    run_by: Vec<OsString>,
    pub(crate) folder: Arc<TempDir>,
    pub(crate) deadline: Duration,
}

impl App {
    /// Any program, by its path or by its name in PATH.
    ///
    /// # Panics
    /// If there is no folder to be had for it.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            options: String::new(),
            env: Vec::new(),
            preload: vec![artifacts().library.clone().into()],
            run_by: Vec::new(),
            folder: Arc::new(tempfile::Builder::new().prefix("leakscan-test-").tempdir().unwrap()),
            deadline: Duration::from_secs(crate::DEADLINE),
        }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args<T: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds to `LEAKSCAN_OPTIONS`. Reports go to the app's folder unless `log_path` is among them.
    #[must_use]
    pub fn options(mut self, options: &str) -> Self {
        self.options.push(':');
        self.options.push_str(options);
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Without the library: what the program does by itself.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.preload.clear();
        self
    }

    /// Puts another library behind ours in `LD_PRELOAD`.
    #[must_use]
    pub fn preload_after(mut self, library: impl AsRef<OsStr>) -> Self {
        self.preload.push(library.as_ref().to_owned());
        self
    }

    /// Takes a copy of our library that has no other file beside it.
    ///
    /// # Panics
    /// If it cannot be copied.
    #[must_use]
    pub fn library_alone(mut self) -> Self {
        let ours = &artifacts().library;
        let folder = self.path("alone");
        std::fs::create_dir(&folder).unwrap();
        let copy = folder.join("libleakscan.so");
        std::fs::copy(ours, &copy).unwrap();
        self.preload.iter_mut().filter(|library| *library == ours).for_each(|library| *library = copy.clone().into());
        self
    }

    /// Puts another library before ours in `LD_PRELOAD`.
    #[must_use]
    pub fn preload_before(mut self, library: impl AsRef<OsStr>) -> Self {
        self.preload.insert(0, library.as_ref().to_owned());
        self
    }

    /// Runs it as the user nobody, from copies of its file and of the library that nobody may read. For root only.
    ///
    /// # Panics
    /// If they cannot be copied.
    #[must_use]
    pub fn as_nobody(mut self) -> Self {
        let folder = Arc::clone(&self.folder);
        let copy = |from: &OsStr| {
            let to =
                folder.path().join(Path::new(from).file_name().and_then(OsStr::to_str).expect("a file has a name"));
            std::fs::copy(from, &to).unwrap();
            to.into_os_string()
        };
        self.preload = self.preload.iter().map(|library| copy(library)).collect::<Vec<_>>();
        self.program = copy(&self.program);
        self.run_by = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(OsString::from).to_vec();
        self
    }

    /// Runs it in so many groups, which its /proc/self/status lists. For root only.
    #[must_use]
    pub fn in_groups(mut self, count: usize) -> Self {
        let groups: Vec<_> = (0..count).map(|number| (1_000_000_000 + number).to_string()).collect();
        self.run_by = ["setpriv".into(), "--groups".into(), groups.join(",").into()].to_vec();
        self
    }

    /// Seconds after which it is killed and the test fails.
    #[must_use]
    pub fn deadline(mut self, seconds: u64) -> Self {
        self.deadline = Duration::from_secs(seconds);
        self
    }

    /// The program's working directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command that starts it.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut words = self.run_by.iter().chain([&self.program]).chain(&self.args);
        let mut command = Command::new(words.next().expect("the program is among them"));
        command.args(words).current_dir(self.folder.path());
        command.env_remove("LEAKSCAN_RUN").env_remove("LD_PRELOAD");
        command.env("LEAKSCAN_OPTIONS", format!("log_path={}/leakscan.%p{}", self.folder().display(), self.options));
        if !self.preload.is_empty() {
            command.env("LD_PRELOAD", self.preload.join(OsStr::new(":")));
        }
        for (name, value) in &self.env {
            command.env(name, value);
        }
        command
    }

    /// Starts it.
    ///
    /// # Panics
    /// If that cannot be done.
    #[must_use]
    pub fn start(&self) -> Running {
        Running::new(self)
    }

    /// Runs it to its end, with nothing on its stdin.
    ///
    /// # Panics
    /// If it cannot be started, or is not done by its deadline.
    #[must_use]
    pub fn run(&self) -> Outcome {
        self.start().finish()
    }

    /// Runs it with and without the library, and gives the outcome of the first. What it does must be the same.
    ///
    /// # Panics
    /// If its output or its status is another one.
    #[must_use]
    pub fn run_as_bare(&self) -> Outcome {
        let bare = self.clone().bare().run();
        let watched = self.run();
        assert_eq!(watched.stdout, bare.stdout, "stdout under leakscan and by itself");
        assert_eq!(watched.stderr, bare.stderr, "stderr under leakscan and by itself");
        assert_eq!(watched.status, bare.status, "status under leakscan and by itself");
        watched
    }
}

/// The command line, `target/release/leakscan`, with these arguments.
#[must_use]
pub fn command<T: AsRef<OsStr>>(args: impl IntoIterator<Item = T>) -> Command {
    let mut command = Command::new(&artifacts().leakscan);
    command.args(args).env_remove("LEAKSCAN_OPTIONS").env_remove("LEAKSCAN_RUN").env_remove("LD_PRELOAD");
    command
}
