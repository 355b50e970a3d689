# Finds the libraries of the backends, and tells what was found. Used when gatedeploy is built, and again by those who
# link what was installed. GATEDEPLOY_BACKENDS: auto takes what is there; what a list names has to be there.

set(GATEDEPLOY_BUILT "")

function(gatedeploy_wanted backend result)
    set(${result} OFF PARENT_SCOPE)
    if(GATEDEPLOY_BACKENDS STREQUAL "auto" OR "${backend}" IN_LIST GATEDEPLOY_BACKENDS)
        set(${result} ON PARENT_SCOPE)
    endif()
endfunction()

# Enters a backend where its library was found; else says, in the words that follow, how to get it.
macro(gatedeploy_found backend found where)
    string(CONCAT remedy ${ARGN})
    if(${found})
        list(APPEND GATEDEPLOY_BUILT ${backend})
        message(STATUS "gatedeploy: ${backend}: found (${where})")
    elseif("${backend}" IN_LIST GATEDEPLOY_BACKENDS)
        message(FATAL_ERROR "gatedeploy: ${backend}: not found. ${remedy}")
    else()
        message(STATUS "gatedeploy: ${backend}: not found. ${remedy}")
    endif()
endmacro()

# A library without CMake files of its own, by one of its headers.
function(gatedeploy_library target header library root)
    find_path(${library}_INCLUDE_DIR ${header} HINTS "${root}"
        PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session)
    find_library(${library}_LIBRARY ${library} HINTS "${root}" PATH_SUFFIXES lib lib64)
    if(${library}_INCLUDE_DIR AND ${library}_LIBRARY AND NOT TARGET ${target})
        add_library(${target} SHARED IMPORTED)
        set_target_properties(${target} PROPERTIES
            IMPORTED_LOCATION "${${library}_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${${library}_INCLUDE_DIR}")
    endif()
endfunction()

# Only where nothing is set: a cache entry would take the place of a variable of this name.
if(NOT DEFINED OnnxRuntime_ROOT)
    set(OnnxRuntime_ROOT "" CACHE PATH "ONNX Runtime's folder, with include/ and lib/")
endif()
if(NOT DEFINED TensorRT_ROOT)
    set(TensorRT_ROOT "" CACHE PATH "The folder of TensorRT or of TensorRT for RTX, with include/ and lib/")
endif()

gatedeploy_wanted(openvino wanted)
if(wanted)
    find_package(OpenVINO QUIET COMPONENTS Runtime)
    gatedeploy_found(openvino "${OpenVINO_FOUND}" "OpenVINO ${OpenVINO_VERSION}, ${OpenVINO_DIR}"
        "Set OpenVINO_DIR to the folder of OpenVINOConfig.cmake. With OpenVINO's Python package that is what "
        "python -c 'from openvino.utils import get_cmake_path as path\; print(path())' prints.")
endif()

gatedeploy_wanted(onnxruntime wanted)
if(wanted)
    gatedeploy_library(gatedeploy_onnxruntime onnxruntime_cxx_api.h onnxruntime "${OnnxRuntime_ROOT}")
    set(found OFF)
    if(TARGET gatedeploy_onnxruntime)
        set(found ON)
    endif()
    gatedeploy_found(onnxruntime ${found} "${onnxruntime_LIBRARY}"
        "Unpack a release of ONNX Runtime for C++ and set OnnxRuntime_ROOT to its folder.")
endif()

gatedeploy_wanted(aoti wanted)
if(wanted)
    set(level "${CMAKE_MESSAGE_LOG_LEVEL}")
    set(CMAKE_MESSAGE_LOG_LEVEL ERROR)  # its files warn of parts that wheels do not have and nobody here needs
    find_package(Torch QUIET)
    set(CMAKE_MESSAGE_LOG_LEVEL "${level}")
    gatedeploy_found(aoti "${Torch_FOUND}" "PyTorch ${Torch_VERSION}, ${Torch_DIR}"
        "Set Torch_DIR to share/cmake/Torch of LibTorch or of PyTorch's Python package, where that is what "
        "python -c 'from torch.utils import cmake_prefix_path as path\; print(path)' prints, and /Torch.")
endif()

# TensorRT and TensorRT for RTX have the same names in them, so one program has one of the two.
foreach(backend tensorrt tensorrt-rtx)
    gatedeploy_wanted(${backend} wanted)
    if(wanted AND TARGET gatedeploy_tensorrt)
        if(NOT GATEDEPLOY_BACKENDS STREQUAL "auto")
            message(FATAL_ERROR "gatedeploy: tensorrt and tensorrt-rtx: a program can have one of the two")
        endif()
    elseif(wanted)
        find_package(CUDAToolkit QUIET)
        set(name nvinfer)
        if(backend STREQUAL "tensorrt-rtx")
            set(name tensorrt_rtx)
        endif()
        set(found OFF)
        if(CUDAToolkit_FOUND)
            gatedeploy_library(gatedeploy_tensorrt NvInfer.h ${name} "${TensorRT_ROOT}")
            if(TARGET gatedeploy_tensorrt)
                target_link_libraries(gatedeploy_tensorrt INTERFACE CUDA::cudart)
                set(found ON)
            endif()
        endif()
        gatedeploy_found(${backend} ${found} "${${name}_LIBRARY}, CUDA ${CUDAToolkit_VERSION}"
            "It takes the CUDA toolkit (CUDAToolkit_ROOT) and the library's headers: set TensorRT_ROOT to its folder.")
    endif()
endforeach()

# Adds the sources of the backends that were found.
function(gatedeploy_add_backends target)
    foreach(backend IN LISTS GATEDEPLOY_BUILT)
        string(TOUPPER "${backend}" name)
        string(REPLACE "-" "_" name "${name}")
        target_compile_definitions(${target} PRIVATE GATEDEPLOY_HAS_${name})
    endforeach()
    if("openvino" IN_LIST GATEDEPLOY_BUILT)
        target_sources(${target} PRIVATE src/in_openvino.cpp src/openvino_unsigned.cpp)
        target_link_libraries(${target} PRIVATE openvino::runtime)
    endif()
    if("onnxruntime" IN_LIST GATEDEPLOY_BUILT)
        target_sources(${target} PRIVATE src/in_onnxruntime.cpp)
        target_link_libraries(${target} PRIVATE gatedeploy_onnxruntime)
    endif()
    if("aoti" IN_LIST GATEDEPLOY_BUILT)
        target_sources(${target} PRIVATE src/in_aoti.cpp)
        # PyTorch 2.13's headers are written in C++20.
        set_source_files_properties(src/in_aoti.cpp PROPERTIES COMPILE_OPTIONS -std=c++20)
        # Its wheels may be built for the older layout of std::string, which everybody who links us must then take too.
        separate_arguments(abi UNIX_COMMAND "${TORCH_CXX_FLAGS}")
        target_compile_options(${target} PUBLIC ${abi})
        target_link_libraries(${target} PRIVATE ${TORCH_LIBRARIES})
        target_include_directories(${target} SYSTEM PRIVATE ${TORCH_INCLUDE_DIRS})
    endif()
    if(TARGET gatedeploy_tensorrt)
        target_sources(${target} PRIVATE src/in_tensorrt.cpp)
        target_link_libraries(${target} PRIVATE gatedeploy_tensorrt)
    endif()
endfunction()
