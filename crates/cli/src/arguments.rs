//! What `TYPE NAME`, `TYPE/NAME` and `TYPE,TYPE` on a command line mean, and flags that many commands share.

use std::path::PathBuf;

use crate::Error;

/// What the positional arguments ask for.
#[derive(Debug, PartialEq)]
pub enum Wanted {
    /// All objects of these types.
    Types(Vec<String>),
    /// Type and name of each object.
    Named(Vec<(String, String)>),
}

/// Reads positional arguments.
pub fn parse(arguments: &[String]) -> Result<Wanted, Error> {
    let Some((first, names)) = arguments.split_first() else {
        return Err(Error::usage(
            "Required resource not specified.\nUse \"kobune kubectl explain <resource>\" for a detailed description of that resource (e.g. kobune kubectl explain pods).",
        ));
    };
    if arguments.iter().any(|argument| argument.contains('/')) {
        return arguments.iter().map(|argument| named(argument)).collect::<Result<_, _>>().map(Wanted::Named);
    }
    let types: Vec<String> = first.split(',').map(str::to_owned).collect();
    if types.iter().any(String::is_empty) {
        return Err(Error::usage("arguments in resource/name form must have a single resource and name"));
    }
    if names.is_empty() {
        return Ok(Wanted::Types(types));
    }
    let pairs = types.iter().flat_map(|of| names.iter().map(|name| (of.clone(), name.clone())));
    Ok(Wanted::Named(pairs.collect()))
}

fn named(argument: &str) -> Result<(String, String), Error> {
    match argument.split_once('/') {
        None => Err(Error::usage(
            "there is no need to specify a resource type as a separate argument when passing arguments in \
             resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource \
             resource/<resource_name>'",
        )),
        Some((of, name)) if !of.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((of.to_owned(), name.to_owned()))
        }
        Some(_) => Err(Error::usage("arguments in resource/name form may not have more than one slash")),
    }
}

/// Files with manifests.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Files {
    /// Files, folders or `-` (standard input) with manifests.
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub filename: Vec<PathBuf>,
    /// Look into the folders of folders too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// Which objects of a type.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Selector {
    /// Only objects with these labels.
    #[arg(short = 'l', long = "selector", default_value = "", hide_default_value = true)]
    pub label: String,
    /// Only objects with these fields.
    #[arg(long = "field-selector", default_value = "", hide_default_value = true)]
    pub field: String,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// Whether a write is only tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    #[default]
    None,
    /// Nothing is sent.
    Client,
    /// The server does everything but store it.
    Server,
}

impl DryRun {
    /// The query parameter.
    pub fn parameter(self) -> (&'static str, &'static str) {
        ("dryRun", if self == Self::Server { "All" } else { "" })
    }

    /// What is appended to messages.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

/// What the server does about fields that it does not know, or that are given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Validate {
    /// The object is refused.
    #[default]
    #[value(alias = "true")]
    Strict,
    /// It is taken, with a warning.
    Warn,
    /// It is taken.
    #[value(alias = "false")]
    Ignore,
}

impl Validate {
    fn parameter(self) -> (&'static str, &'static str) {
        let level = match self {
            Self::Strict => "Strict",
            Self::Warn => "Warn",
            Self::Ignore => "Ignore",
        };
        ("fieldValidation", level)
    }
}

/// Flags of writing commands.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Writing {
    /// Only try it: on this side, or on the server without storing anything.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    pub dry_run: DryRun,
    /// The name under which the server remembers which fields were set.
    #[arg(long, value_name = "NAME")]
    pub field_manager: Option<String>,
    /// What is done about unknown and duplicate fields.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "strict", default_missing_value = "strict")]
    pub validate: Validate,
}

impl Writing {
    /// Query parameters, with the field manager that the command has by default.
    pub fn parameters<'a>(&'a self, manager: &'a str) -> [(&'a str, &'a str); 3] {
        [
            self.dry_run.parameter(),
            ("fieldManager", self.field_manager.as_deref().unwrap_or(manager)),
            self.validate.parameter(),
        ]
    }
}
