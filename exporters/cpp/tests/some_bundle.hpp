// Bundles that the tests write themselves.
#pragma once

#include <filesystem>
#include <string>

/// A manifest's text with its seal behind it.
std::string sealed(const std::string& body);

/// Replaces the first `from`; throws where there is none.
std::string replaced(std::string text, const std::string& from, const std::string& to);

/// A folder that is removed at the end, with a whole bundle: pictures of 2 channels, 3 × 4; a task `scene` with 2
/// classes, and a task `depth` with two outputs. Its network is no network.
class SomeBundle {
public:
    SomeBundle();
    SomeBundle(const SomeBundle&) = delete;
    SomeBundle& operator=(const SomeBundle&) = delete;
    ~SomeBundle();

    const std::filesystem::path& path() const { return path_; }

    /// The manifest's text before the seal.
    const std::string& body() const { return body_; }

    void write(const std::string& name, const std::string& content) const;

    /// Writes the manifest, sealed.
    void write_manifest(const std::string& body) const;

private:
    std::filesystem::path path_;
    std::string body_;
};
