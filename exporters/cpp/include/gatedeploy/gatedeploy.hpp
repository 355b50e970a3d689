// Networks that gatedeploy exported, in C++.
#pragma once

#include "gatedeploy/bundle.hpp"
#include "gatedeploy/engine.hpp"
#include "gatedeploy/errors.hpp"
#include "gatedeploy/pixels.hpp"
#include "gatedeploy/tensor.hpp"
