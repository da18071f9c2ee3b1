# The tests of the emulated device, label "cuda". Modes: schedules, AddressSanitizer, the checker, nvcc's PTX.
set(OPERATIONS backend_linear backend_norm backend_attention backend_head backend_optimizer backend_table)
set(asan_runtime "")
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libasan.so OUTPUT_VARIABLE asan_runtime
  OUTPUT_STRIP_TRAILING_WHITESPACE)

fb3_device_tests(cuda REQUIRED TIMEOUT 600 LABELS cuda ENVIRONMENT FB3_TEST_SIZES=small)
fb3_device_tests(cuda_seed2 REQUIRED TIMEOUT 600 LABELS cuda ONLY ${OPERATIONS}
  ENVIRONMENT FB3_TEST_SIZES=small CUDAEMU_SEED=2)
fb3_device_tests(cuda_reverse REQUIRED TIMEOUT 600 LABELS cuda ONLY ${OPERATIONS}
  ENVIRONMENT FB3_TEST_SIZES=small CUDAEMU_ORDER=rev)
fb3_device_tests(cuda_asan REQUIRED TIMEOUT 900 LABELS cuda ONLY ${OPERATIONS}
  ENVIRONMENT FB3_TEST_SIZES=small FB3_CUDA_LIBRARY=${CMAKE_BINARY_DIR}/asan/libfb3_cuda.so LD_PRELOAD=${asan_runtime}
    ASAN_OPTIONS=detect_leaks=0)
if(TARGET fb3_cuda_check)
  fb3_device_tests(cuda_check REQUIRED TIMEOUT 900 LABELS cuda ONLY ${OPERATIONS}
    ENVIRONMENT FB3_TEST_SIZES=small FB3_CUDA_LIBRARY=${CMAKE_BINARY_DIR}/check/libfb3_cuda.so)
endif()

# What needs nvcc. sm_80 and sm_100 are for tools/soak.
if(TARGET ptx_90)
  fb3_device_tests(cuda_ptx90 REQUIRED TIMEOUT 900 LABELS cuda ONLY ${OPERATIONS}
    ENVIRONMENT FB3_TEST_SIZES=small CUDAEMU_PTX=${CMAKE_BINARY_DIR}/ptx/90)
  add_test(NAME cuda_resources COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/resources.py ${CMAKE_BINARY_DIR}/ptx)
  set_tests_properties(cuda_resources PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77 LABELS cuda)
endif()

# The emulator itself: planted bugs, each found by the modes that claim to; and the shims.
add_test(NAME cuda_plants COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/plants/run.py ${CMAKE_BINARY_DIR}/plants)
set_tests_properties(cuda_plants PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77 LABELS cuda)

# The model of a step's speed: its formulas against the emulator's own counts, on a small shape.
add_executable(one_step ${CMAKE_CURRENT_LIST_DIR}/one_step.c)
target_link_libraries(one_step PRIVATE fb3_train)
set_target_properties(one_step PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
if(TARGET ptx_90)
  add_test(NAME cuda_gpu_model COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/gpu-model --build ${CMAKE_BINARY_DIR} --verify)
  set_tests_properties(cuda_gpu_model PROPERTIES TIMEOUT 120 LABELS cuda)
endif()

add_test(NAME cuda_shims COMMAND test_cuda_shims)
add_test(NAME cuda_shims_ranks COMMAND ${CMAKE_CURRENT_LIST_DIR}/shims/run_nccl_tests.sh $<TARGET_FILE:test_cuda_shims>)
set_tests_properties(cuda_shims cuda_shims_ranks PROPERTIES TIMEOUT 300 LABELS cuda)

# Snapshots where the device has no room for a second copy.
fb3_device_tests(cuda_small REQUIRED TIMEOUT 300 LABELS cuda ONLY backend_snapshot ENVIRONMENT CUDAEMU_MEMORY=1300000000)
