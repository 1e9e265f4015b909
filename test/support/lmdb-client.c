/*
 * A client of LMDB with a writable map, for a test to kill.
 *
 *   lmdb-client write DIR FROM   commits records from FROM on, one a transaction, and says each number
 *                                once its commit (an msync of the map) has returned; never ends.
 *   lmdb-client check DIR COUNT  all records below COUNT are there and right, and what lies beyond
 *                                them is without gaps; says how many there are.
 */
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_BYTES = 3000 };

static void must(int rc, const char *what) {
  if (rc == 0) return;
  fprintf(stderr, "%s: %s\n", what, mdb_strerror(rc));
  exit(1);
}

static void fill(char *value, unsigned long number) {
  memset(value, 'a' + number % 26, VALUE_BYTES);
  snprintf(value, 32, "record %lu", number);
}

static void write_from(MDB_env *env, unsigned long number) {
  char value[VALUE_BYTES];
  for (;; number++) {
    MDB_txn *txn;
    MDB_dbi dbi;
    must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
    must(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi), "open");
    fill(value, number);
    MDB_val key = { sizeof number, &number }, data = { VALUE_BYTES, value };
    must(mdb_put(txn, dbi, &key, &data, 0), "put");
    if (number >= 50) {
      unsigned long old = number - 50;
      MDB_val old_key = { sizeof old, &old }, old_data;
      must(mdb_get(txn, dbi, &old_key, &old_data), "get");
    }
    must(mdb_txn_commit(txn), "commit");
    printf("%lu\n", number);
    fflush(stdout);
  }
}

static void check(MDB_env *env, unsigned long wanted) {
  char value[VALUE_BYTES];
  unsigned long number;
  MDB_txn *txn;
  MDB_dbi dbi;
  must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "begin");
  must(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi), "open");
  for (number = 0;; number++) {
    MDB_val key = { sizeof number, &number }, data;
    int rc = mdb_get(txn, dbi, &key, &data);
    if (rc == MDB_NOTFOUND) break;
    must(rc, "get");
    fill(value, number);
    if (data.mv_size != VALUE_BYTES || memcmp(data.mv_data, value, VALUE_BYTES) != 0) {
      fprintf(stderr, "record %lu is wrong\n", number);
      exit(1);
    }
  }
  if (number < wanted) {
    fprintf(stderr, "record %lu of %lu committed ones is gone\n", number, wanted);
    exit(1);
  }
  printf("%lu\n", number);
}

int main(int argc, char **argv) {
  MDB_env *env;
  if (argc != 4) return 2;
  int writing = strcmp(argv[1], "write") == 0;
  must(mdb_env_create(&env), "create");
  must(mdb_env_set_mapsize(env, 64 << 20), "mapsize");
  must(mdb_env_open(env, argv[2], MDB_WRITEMAP, 0644), "open");
  if (writing) write_from(env, strtoul(argv[3], NULL, 10));
  else check(env, strtoul(argv[3], NULL, 10));
  mdb_env_close(env);
  return 0;
}
