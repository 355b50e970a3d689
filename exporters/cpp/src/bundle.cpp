#include "gatedeploy/bundle.hpp"

#include <fstream>
#include <iterator>

#include "gatedeploy/errors.hpp"
#include "manifest_json.hpp"
#include "names.hpp"
#include "sha256.hpp"
#include "text.hpp"

namespace fs = std::filesystem;

namespace gatedeploy {
namespace {

constexpr std::size_t kMostAdded = 100;
constexpr std::uintmax_t kMostManifestBytes = std::uintmax_t{32} << 20;

void check_readable(const std::error_code& error) {
    if (error) throw InputError("cannot be read: " + error.message());
}

Manifest read_manifest(const fs::path& folder) {
    std::error_code error;
    if (!fs::is_directory(folder, error)) {
        const char* what = fs::exists(folder, error) ? "a file" : "no such folder";
        throw InputError(folder.string() + ": " + what +
                         "; expected the folder of a bundle, as gatedeploy export writes it");
    }
    const fs::path file = folder / kManifest;
    if (fs::symlink_status(file, error).type() != fs::file_type::regular) {
        throw InputError(folder.string() + ": not a bundle (no " + kManifest + " in it); gatedeploy export writes one");
    }
    return located(file.string(), [&] {
        const std::uintmax_t size = fs::file_size(file, error);
        check_readable(error);
        if (size > kMostManifestBytes) {
            throw InputError("has " + grouped(size) + " bytes; no bundle's manifest is that large");
        }
        std::string text(size, '\0');
        std::ifstream stream(file, std::ios::binary);
        if (!stream.read(text.data(), static_cast<std::streamsize>(size))) throw InputError("cannot be read");
        return manifest_from_json(text);
    });
}

/// Size of every file but the manifest, by path with forward slashes; refuses all that is neither file nor folder.
std::map<std::string, std::uint64_t> files_in(const fs::path& root, std::size_t listed) {
    std::map<std::string, std::uint64_t> found;
    std::error_code error;
    fs::recursive_directory_iterator entry(root, error), end;
    check_readable(error);
    for (; entry != end; entry.increment(error), check_readable(error)) {
        const std::string name = entry->path().lexically_relative(root).generic_string();
        const fs::file_type type = entry->symlink_status(error).type();
        check_readable(error);
        if (type == fs::file_type::symlink) {
            throw InputError(shown(name) + " is a link; a bundle holds plain files only. Refused");
        }
        if (type == fs::file_type::directory) {
            // Nothing that deep can be listed, so there is no need to look into it.
            if (!is_file_name(name + "/x")) throw InputError(shown(name) + " is a folder that no bundle has. Refused");
            continue;
        }
        if (type != fs::file_type::regular) {
            throw InputError(shown(name) + " is neither a file nor a folder; a bundle holds plain files only. Refused");
        }
        if (name == kManifest) continue;
        found[name] = entry->file_size(error);
        check_readable(error);
        if (found.size() > listed + kMostAdded) {  // no need to see them all
            throw CheckError("holds far more files than the manifest lists; copy or export it again");
        }
    }
    return found;
}

template <class Of, class In>
std::vector<std::string> names_missing(const Of& of, const In& in) {
    std::vector<std::string> names;
    for (const auto& [name, unused] : of) {
        static_cast<void>(unused);
        if (!in.count(name)) names.push_back(name);
    }
    return names;
}

void check_files(const fs::path& root, const std::map<std::string, FileSpec>& listed) {
    const std::map<std::string, std::uint64_t> found = files_in(root, listed.size());
    const std::vector<std::string> missing = names_missing(listed, found), added = names_missing(found, listed);
    if (!missing.empty()) throw CheckError(joined(missing) + " is missing; copy or export the bundle again");
    if (!added.empty()) {
        throw CheckError("holds " + joined(added) + ", which the manifest does not list; copy or export it again");
    }
    for (const auto& [name, file] : listed) {
        const std::uint64_t size = found.at(name);
        if (size != file.size_bytes) {
            throw CheckError(name + " has " + grouped(size) + " bytes, expected " + grouped(file.size_bytes) +
                             "; copy or export the bundle again");
        }
        const std::string digest = sha256_of_file(root / name);
        if (digest != file.sha256) {
            throw CheckError(name + " was changed or damaged: its SHA-256 is " + digest.substr(0, 12) + "…, expected " +
                             file.sha256.substr(0, 12) + "…; copy or export the bundle again");
        }
    }
}

}  // namespace

const Task& Manifest::task(const std::string& name) const {
    std::vector<std::string> names;
    for (const Task& each : tasks) {
        if (each.name == name) return each;
        names.push_back(each.name);
    }
    throw InputError("there is no task " + in_quotes(name) + "; this network answers " + joined(names));
}

Bundle read_bundle(const fs::path& path) {
    Bundle bundle{path, read_manifest(path)};
    located(path.string(), [&] { check_files(path, bundle.manifest.files); });
    return bundle;
}

}  // namespace gatedeploy
