//! Request methods.

/// A request method. All methods that no route supports are `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Other,
}

impl Method {
    /// Parses a method name, which is case-sensitive.
    pub(in crate::server) fn from_name(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }

    /// Returns the method name. All unknown methods are `OTHER`, which no route allows.
    pub(in crate::server) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Other => "OTHER",
        }
    }
}
