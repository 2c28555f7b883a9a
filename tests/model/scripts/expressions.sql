# Expressions and what the columns of their results are.
DROP TABLE IF EXISTS shop.it
CREATE TABLE shop.it(id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(60) NOT NULL, price DECIMAL(8,2) NOT NULL)
INSERT INTO shop.it(name, price) VALUES('carabiner', 9.50), ('rope 60 m', 129.00)
SELECT 1
SELECT 1+1, -5, 'a', NULL, 1.5, 1e3, 3000000000, CONCAT('a','b',1), 'x'=1, 1<2, 2*3.1, 'a'+1
SHOW WARNINGS
SET @a=5, @b='x', @c=1.5, @d=NULL, @e=1e0
SELECT @a,@b,@c,@d,@e,@nope
SELECT @a:=6
SELECT @@autocommit, @@sql_mode, @@session.time_zone, @@global.wait_timeout, @@last_insert_id, @@identity, @@timestamp=0
SELECT DATABASE(), USER(), CURRENT_USER(), CONNECTION_ID()>0, LAST_INSERT_ID(), ROW_COUNT(), FOUND_ROWS()
SELECT CURRENT_ROLE()
SELECT COUNT(*), SUM(id) FROM shop.it
SELECT id, name, price FROM shop.it WHERE id<3
SELECT GET_LOCK('a',0), IS_USED_LOCK('a') IS NULL, RELEASE_LOCK('a'), RELEASE_LOCK('zz')
SHOW WARNINGS
SHOW VARIABLES LIKE 'autocommit'
SELECT @@warning_count, @@error_count
SHOW COUNT(*) WARNINGS
SELECT @@insert_id
SELECT @@character_set_client, @@collation_connection,@@sql_select_limit,@@group_concat_max_len
DROP TABLE IF EXISTS shop.it
