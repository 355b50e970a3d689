// The examples of FIPS 180-4 and of NIST's test files.
#include "sha256.hpp"

#include "check.hpp"
#include "gatedeploy/errors.hpp"
#include "some_bundle.hpp"

using gatedeploy::sha256;

TEST(hashes_are_those_of_the_standard) {
    CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(sha256(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(a_hash_does_not_depend_on_the_pieces) {
    const std::string text(200, 'x');
    for (std::size_t piece = 1; piece <= 130; ++piece) {
        gatedeploy::Sha256 hash;
        for (std::size_t place = 0; place < text.size(); place += piece) {
            hash.update(text.data() + place, std::min(piece, text.size() - place));
        }
        CHECK(hash.hex() == sha256(text));
    }
}

TEST(a_file_is_hashed_whole) {
    const SomeBundle bundle;
    for (std::size_t size : {0, 1, 65535, 65536, 65537, 200000}) {
        const std::string content(size, 'q');
        bundle.write("some", content);
        CHECK(gatedeploy::sha256_of_file(bundle.path() / "some") == sha256(content));
    }
    CHECK_THROWS(gatedeploy::InputError, "cannot be read", gatedeploy::sha256_of_file(bundle.path() / "none"));
}
