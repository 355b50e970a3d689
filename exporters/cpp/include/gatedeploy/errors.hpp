// What can go wrong. A message says where, what was found, what was expected and what to do.
#pragma once

#include <stdexcept>

namespace gatedeploy {

/// Every error that this library throws; on its own: the runtime failed, for a reason of its own.
class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// What was passed cannot be used: no bundle, another version, a wrong batch, a name that does not exist.
class InputError : public Error {
public:
    using Error::Error;
};

/// The input was fine and a check failed: a hash, or the numbers that the network computes.
class CheckError : public Error {
public:
    using Error::Error;
};

/// The backend that was asked for is not in this build of the library.
class MissingBackendError : public InputError {
public:
    using InputError::InputError;
};

}  // namespace gatedeploy
